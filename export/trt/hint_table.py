"""The causes of refusals by NVIDIA's parser and builder that are known, and what to do about each."""

_SYMMETRIC = (
    "TensorRT's int8 is signed and symmetric. Quantise again with onnxruntime's quantize_static: activation_type and "
    "weight_type QInt8, extra_options ActivationSymmetric and WeightSymmetric True"
)
_FIXED_SIZE = "keep it outside the network, or choose a fixed number by score with TopK and Gather"
_CONSTANT = "make it a constant (an initialiser) of the graph"
_EVAL = "export the network in eval mode (module.eval())"
_FUSED = "write attention as MatMul, Softmax and MatMul, as exporters do below opset 23: TensorRT fuses that itself"
_UINT8 = "TensorRT computes nothing in uint8: put a Cast to float or int32 directly after the input"

HINTS: tuple[tuple[str, str, str], ...] = (
    # Quantised networks
    ("", r"zero.?point is not supported|shiftIsAllZeros|UINT8 zero_point", _SYMMETRIC),
    (
        "DequantizeLinear",
        r"has type Int32",
        "biases must stay in float: quantise again with extra_options QuantizeBias False",
    ),
    (
        r"QLinear\w+|ConvInteger|MatMulInteger|DynamicQuantizeLinear",
        r"",
        "TensorRT reads quantised networks as "
        "QuantizeLinear and DequantizeLinear pairs: quantise again with quant_format=QuantFormat.QDQ",
    ),
    (
        "",
        r"zero_point. which is not an initializer",
        f"its zero point, {{input2}}, is known only when the network runs: {_CONSTANT} with the value 0 of a signed "
        "type, or leave it out",
    ),
    ("(De)?[Qq]uantizeLinear", r"input type of UINT8", _SYMMETRIC),
    ("DequantizeLinear", r"even number of elements", "pad the 4-bit tensor to an even number of elements"),
    ("QuantizeLinear", r"output_dtype", "quantise to int8, float8e4m3fn, int4 or float4e2m1"),
    (
        "",
        r"has datatype (FP8|FP4|Int4)",
        "types of 4 bits and fp8 exist only between QuantizeLinear and "
        "DequantizeLinear: convert to and from them with these, not with Cast or CastLike, and not across inputs and "
        "outputs",
    ),
    # Sizes that the network computes
    (r"NonZero|NonMaxSuppression|Compress|Unique", r"", f"its output's size depends on the data: {_FIXED_SIZE}"),
    ("TopK", r"K exceeds the maximum", "choose fewer candidates, or take the top k of parts first"),
    (
        r"Reduce\w+",
        r"Axis input must resolve",
        f"its axes, {{input1}}, are known only when the network runs: {_CONSTANT}",
    ),
    (
        r"Unsqueeze|Squeeze",
        r"axis is not a constant",
        f"its axes, {{input1}}, are known only when the network runs: {_CONSTANT}",
    ),
    (
        "Resize|Upsample",
        r"is a shape tensor and must have type|isInFlight",
        f"its scales come from an input of the network: {_CONSTANT}, or give sizes instead",
    ),
    ("OneHot", r"isInFlight", f"its depth, {{input1}}, is known only when the network runs: {_CONSTANT}"),
    (
        "",
        r"Network input (\w+) is a shape tensor and must have type|isInFlight",
        f"a size is computed from a float, or from an input that is not an integer: {_CONSTANT}, or an int64 input",
    ),
    (
        "STFT",
        r"must be an initializer",
        "its frame step, {input1}, and frame length: make both constants (initialisers) of the graph",
    ),
    ("", r"must be an initializer|is not an initializer", f"an input of the node is computed: {_CONSTANT}"),
    ("Split", r"last chunk size is negative", "give it the sizes of the parts in its second input"),
    (
        "",
        r"equal ranks when condition is not",
        "both branches of the If must give tensors with the same number of "
        "axes; fold its condition if it is known, for instance with onnxruntime's basic optimizations",
    ),
    # Attention and normalisation
    ("Attention", r"one output", "the outputs other than the first have no implementation: leave {other_outputs} out"),
    ("Attention", r"softcap|softmax precision", f"this attribute has no implementation: {_FUSED}"),
    (
        "Attention",
        r"Option mask cannot be used together",
        "is_causal and a mask exclude each other here: write the causal mask into {input3} and leave is_causal out",
    ),
    ("Attention", r"mask|Key and Value must have the same shape", f"this form has no implementation: {_FUSED}"),
    ("Attention", r"dedicated kernel", f"no kernel exists for these shapes, mask and type. Try float16, or {_FUSED}"),
    ("Attention", r"Only a build shows", "check again with --build"),
    (
        "LayerNormalization",
        r"outputs",
        "its mean and inverse standard deviation, {other_outputs}, have no implementation: leave these outputs out",
    ),
    ("MaxPool", r"outputs", "the indices, {other_outputs}, have no implementation: leave this output out"),
    ("BatchNormalization|Dropout", r"training|outputs", f"this is the form for training: {_EVAL}"),
    # Attributes
    (
        r"\w*Pool",
        r"dilations",
        "dilated pooling has no implementation: write it as Max or Mean of slices, or keep it outside the network",
    ),
    ("LpPool", r"L1 and L2", "use p 1 or 2"),
    (
        r"Scatter\w+",
        r"reduction",
        "scatter with reduction has no implementation: write the sum as OneHot and MatMul, or "
        "keep it outside the network",
    ),
    (
        "Resize",
        r"transformationMode",
        "set coordinate_transformation_mode to half_pixel, pytorch_half_pixel, asymmetric or align_corners",
    ),
    ("Resize", r"keep_aspect_ratio_policy", "compute the sizes beforehand, with keep_aspect_ratio_policy stretch"),
    ("Resize", r"antialias", "leave antialias out: blur with a convolution first, or resize outside the network"),
    ("Resize", r"axesInterlacing", "give scales for every axis and leave the attribute axes out"),
    ("Mod", r"fmod", "set fmod to 1, or compute in int32"),
    ("TensorScatter", r"", "give a 4-D cache and the mode linear"),
    # Types
    (r"Random\w+", r"data type", "generate random numbers in float32 or float16"),
    ("Clip", r"only supports floating-point", "put a Cast to int32 before it, and one back after it"),
    ("Range", r"only supports", "compute the range in int32, int64 or float32, and put a Cast after it"),
    (
        "Celu",
        r"same input types",
        "TensorRT computes it in float32 only: put a Cast to float32 before it, and one back after it",
    ),
    (
        "",
        r"same (input )?types?\b.*BFloat16|BFloat16.*same (input )?types?\b",
        "bfloat16 meets another type. An "
        "exporter that folds a batch norm may write float32 weights: fold it with "
        "torch.nn.utils.fusion.fuse_conv_bn_eval before casting the network",
    ),
    ("", r"same (input )?types?\b", "TensorRT adds no casts: put a Cast before this node"),
    ("", r"UINT8|UInt8|UINT4", _UINT8),
    ("", r"requires inputs with type|must have type", "put a Cast to one of these types before it"),
    # The whole file
    (
        "",
        r"Pre-opset 7",
        "the graph has opset {opset}: onnx.version_converter.convert_version(model, 17), or export it again",
    ),
    ("", r"at least one output", "the graph names no outputs: list them in graph.output"),
    ("MatMul", r"changes volume", "put an Unsqueeze before its one-dimensional input and a Squeeze after it"),
    # Operators that do not exist
    (
        r"\w+_TRT",
        r"[Pp]lugin",
        f"a plugin that this TensorRT does not contain, and TensorRT-RTX contains none: {_FIXED_SIZE}",
    ),
    (
        "RoiAlign",
        r"plugin",
        "its plugin needs a GPU with a driver, and TensorRT-RTX contains none: sample with GridSample, or keep it "
        "outside the network",
    ),
    (
        r"NegativeLogLikelihoodLoss|SoftmaxCrossEntropyLoss|Gradient|Adagrad|Adam|Momentum",
        r"",
        "this is part of a training: export the network without its loss and optimizer",
    ),
    (
        r"Sequence\w*|SplitToSequence|ConcatFromSequence|Optional\w*",
        r"",
        "TensorRT has tensors only, no sequences and no optionals: use Split, Concat or Gather on tensors",
    ),
    (
        r"String\w*|RegexFullMatch|TfIdfVectorizer|ImageDecoder|LabelEncoder",
        r"",
        "TensorRT computes with numbers only: decode and tokenise outside the network",
    ),
    (
        r"Bit\w+",
        r"",
        "TensorRT has no operations on bits: write shifts as Mul and Div by powers of two, and keep the rest outside",
    ),
)
"""(operator or "", pattern in NVIDIA's text, what to do); the first match counts. {input1} is the second input."""
