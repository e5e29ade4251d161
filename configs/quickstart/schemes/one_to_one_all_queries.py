from .one_to_one import dataloader, dataset, model, optimizer, schedule, train

# As many queries as the hybrid schemes train, here also at inference.
model.transformer.query_source.num_queries = 160
train.output_dir = "output/schemes/one_to_one_all_queries"
