"""The page: drop a picture, see boxes. It asks once and filters itself, so that its sliders answer at once."""

_STYLE = """
:root { color-scheme: light dark;
  --paper: #f7f8fa; --card: #ffffff; --ink: #1b2330; --soft: #5b6675; --rule: #dfe3e9;
  --main: #2563c9; --bad: #b3243d; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #11151b; --card: #1a2029; --ink: #e6eaf0; --soft: #9aa6b6; --rule: #303947;
  --main: #6ea8ff; --bad: #ff7b93; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 16px; display: grid; gap: 14px;
  grid-template-columns: minmax(0, 1fr) 300px; align-items: start; }
header, #message { grid-column: 1 / -1; }
@media (max-width: 760px) { main { grid-template-columns: minmax(0, 1fr); padding: 12px; } }
h1 { font-size: 1.25rem; line-height: 1.25; margin: 0; overflow-wrap: anywhere; }
.soft { color: var(--soft); font-size: .9rem; overflow-wrap: anywhere; }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 14px; min-width: 0; }
#drop { position: relative; display: flex; min-height: 260px; align-items: center; justify-content: center;
  border: 2px dashed var(--rule); border-radius: 10px; background: var(--card); cursor: pointer; text-align: center; }
#drop.over { border-color: var(--main); } #drop:focus-within { outline: 3px solid var(--main); outline-offset: 2px; }
#drop.shown { border-style: solid; display: block; padding: 0; overflow: hidden; }
#drop.shown #hint { display: none; } #drop:not(.shown) canvas { display: none; }
#hint { padding: 20px; } canvas { display: block; width: 100%; height: auto; }
#file { position: absolute; inset: 0; width: 100%; height: 100%; opacity: 0; cursor: pointer; }
label { display: block; font-weight: 600; margin-top: 10px; } output { float: right; font-weight: 400; }
input[type=range] { width: 100%; accent-color: var(--main); }
#message { min-height: 1.5em; } #message.bad { color: var(--bad); }
ol { list-style: none; margin: 12px 0 0; padding: 0; max-height: 420px; overflow-y: auto; }
li { display: flex; gap: 8px; align-items: baseline; padding: 3px 0; border-bottom: 1px solid var(--rule); }
li span:nth-child(2) { flex: 1; overflow-wrap: anywhere; } li span:last-child { font-variant-numeric: tabular-nums; }
li i { width: 12px; height: 12px; border-radius: 3px; flex: none; }
"""

_SCRIPT = """
"use strict";
const get = id => document.getElementById(id);
const drop = get("drop"), file = get("file"), canvas = get("canvas"), message = get("message"), list = get("list");
const threshold = get("threshold"), suppression = get("suppress");
let picture = null, found = null, asked = 0, classes = [];

function tell(text, bad = false) { message.textContent = text; message.className = bad ? "bad" : "soft"; }
function colour(label) {
  return `hsl(${(classes.indexOf(label) * 137.5) % 360}, 80%, 36%)`;
}
function overlap(a, b) {
  const width = Math.min(a[2], b[2]) - Math.max(a[0], b[0]), height = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  if (width <= 0 || height <= 0) return 0;
  const area = box => (box[2] - box[0]) * (box[3] - box[1]);
  return width * height / (area(a) + area(b) - width * height);
}
function chosen() {
  const least = Number(threshold.value), limit = Number(suppression.value), kept = [];
  for (const each of found.detections) {
    if (each.score < least) continue;
    if (limit < 1 && kept.some(other => other.label === each.label && overlap(other.box, each.box) > limit)) continue;
    kept.push(each);
  }
  return kept;
}
function draw() {
  get("threshold-value").textContent = Number(threshold.value).toFixed(2);
  const limit = Number(suppression.value);
  get("suppress-value").textContent = limit < 1 ? "IoU " + limit.toFixed(2) : "off";
  if (!picture) return;
  // As many pixels as are shown, so that lines and letters are as thick on small pictures as on large ones.
  const shown = drop.clientWidth || picture.naturalWidth, most = 4096;
  canvas.width = Math.min(most, Math.max(picture.naturalWidth, Math.round(shown * devicePixelRatio)));
  canvas.height = Math.round(canvas.width * picture.naturalHeight / picture.naturalWidth);
  const context = canvas.getContext("2d");
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  list.replaceChildren();
  if (!found) return;
  const scale = canvas.width / found.width;
  const thick = 2 * canvas.width / shown, size = 13 * canvas.width / shown;
  const kept = chosen();
  context.font = `600 ${size}px sans-serif`;
  for (const each of [...kept].reverse()) {
    const [left, top, right, bottom] = each.box.map(side => side * scale);
    const text = `${each.label} ${each.score.toFixed(2)}`, width = context.measureText(text).width + size / 2;
    for (const [style, width] of [["#ffffffb0", 2 * thick], [colour(each.label), thick]]) {  // seen on any ground
      context.strokeStyle = context.fillStyle = style;
      context.lineWidth = width;
      context.strokeRect(left, top, right - left, bottom - top);
    }
    const above = top > size * 1.3 ? top - size * 1.3 : top;
    context.fillRect(left - thick / 2, above, width, size * 1.3);
    context.fillStyle = "#fff";
    context.fillText(text, left + size / 4 - thick / 2, above + size);
  }
  for (const each of kept) {
    const row = document.createElement("li"), mark = document.createElement("i");
    const label = document.createElement("span"), score = document.createElement("span");
    mark.style.background = colour(each.label);
    label.textContent = each.label; score.textContent = each.score.toFixed(2);
    row.append(mark, label, score); list.append(row);
  }
  tell(`${kept.length} of ${found.detections.length} detections are shown; ${found.width} x ${found.height} pixels, ` +
    `${Math.round(found.seconds * 1000)} ms`);
}
async function show(chosenFile) {
  if (!chosenFile) return;
  const number = ++asked, image = new Image();
  found = null; list.replaceChildren(); tell("Detecting ...");
  image.src = URL.createObjectURL(chosenFile);
  const decoded = image.decode().then(() => true, () => false);
  try {
    const answer = await fetch("detect?threshold=0.01", { method: "POST", body: chosenFile });
    const content = await answer.json();
    if (number !== asked) return;
    if (!answer.ok) throw new Error(content.error);
    if (!await decoded) throw new Error("this browser cannot show the picture; the endpoint can detect in it");
    if (picture) URL.revokeObjectURL(picture.src);
    picture = image; found = content;
    drop.classList.add("shown");
    draw();
  } catch (error) {
    URL.revokeObjectURL(image.src);
    if (number === asked) tell(error instanceof TypeError ? "The server does not answer." : error.message, true);
  }
}
file.addEventListener("change", () => { show(file.files[0]); file.value = ""; });
for (const [name, over] of [["dragover", true], ["dragleave", false], ["drop", false]])
  drop.addEventListener(name, event => { event.preventDefault(); drop.classList.toggle("over", over); });
drop.addEventListener("drop", event => show(event.dataTransfer.files[0]));
document.addEventListener("paste", event => show([...event.clipboardData.files][0]));
for (const slider of [threshold, suppression]) slider.addEventListener("input", draw);
window.addEventListener("resize", draw);
fetch("model").then(answer => answer.json()).then(about => {
  get("name").textContent = about.model;
  const names = classes = about.classes.map(each => each.name);
  const more = names.length > 12 ? " ..." : "";
  get("classes").textContent = `${names.length} classes: ${names.slice(0, 12).join(", ")}${more}`;
  threshold.value = Math.min(...about.classes.map(each => each.threshold));
  draw();
});
draw();
"""

PAGE = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>hdetr_d2</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<header><h1 id="name">hdetr_d2</h1><div class="soft" id="classes"></div></header>
<div id="drop">
<div id="hint"><b>Drop a picture here</b><br><span class="soft">or choose one, or paste it</span></div>
<canvas id="canvas"></canvas>
<input id="file" type="file" accept="image/*" aria-label="A picture to detect in">
</div>
<div class="card">
<label for="threshold">Score at least <output id="threshold-value"></output></label>
<input id="threshold" type="range" min="0.01" max="1" step="0.01" value="0.3">
<label for="suppress">Suppress overlaps <output id="suppress-value"></output></label>
<input id="suppress" type="range" min="0.05" max="1" step="0.05" value="1">
<ol id="list" aria-label="Detections"></ol>
<p class="soft">Programs: POST the bytes of an image to <a href="openapi.json">/detect</a>.</p>
</div>
<div id="message" role="status" class="soft"></div>
</main>
<script>{_SCRIPT}</script>
</body>
</html>
"""
