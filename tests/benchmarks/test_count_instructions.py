"""How benchmarks/count_instructions.py reads machine code."""

import re

import pytest

from benchmarks.count_instructions import instructions_of_sample

LISTING = """
        /*0000*/                   S2R R0, SR_TID.X ;
.L_x_1:
        /*0010*/                   LDC R1, c[0x0][0x210] ;
        /*0020*/               @P1 BRA `(.L_x_3) ;
        /*0030*/                   IMAD R2, R2, R2, R2 ;
.L_x_3:
        /*0040*/                   LDG.E.128 R4, desc[UR4][R2.64] ;
        /*0050*/                   LDG.E.128 R4, desc[UR4][R2.64+0x10] ;
        /*0060*/                   LDL R9, [R1] ;
        /*0070*/              @!P0 BRA `(.L_x_4) ;
        /*0080*/                   RED.E.ADD.F32 desc[UR4][R2.64], R4 ;
.L_x_4:
        /*0090*/               @P2 BRA `(.L_x_3) ;
        /*00a0*/               @P3 BRA `(.L_x_1) ;
        /*00b0*/                   EXIT ;
"""


def test_instructions_are_counted_on_the_shortest_way_that_adds_atomically() -> None:
    """A level: 2 instructions and a branch back about 4 samples of 6 (the multiplication is passed by)."""
    cost, spills = instructions_of_sample(LISTING.splitlines(), 2, re.compile(r"LDG\.E\.128"))
    assert cost == pytest.approx((2 + 4 * 6 + 1) / 4)
    assert spills == 1
