"""From a lowered ONNX graph to Relax: TVM's importer, infc's converters, and what is refused."""
