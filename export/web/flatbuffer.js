// What LiteRT.js does not tell of a .tflite, read from its flatbuffer: tables.py once more.

// Places of fields in the tables of TFLite's schema.fbs and of metadata_schema.fbs.
const MODEL = { subgraphs: 2, buffers: 4, metadata: 6 };
const ENTRY = { name: 0, buffer: 1 };
const GRAPH = { tensors: 0, inputs: 1, outputs: 2 };
const TENSOR = { shape: 0, quantization: 4, signature: 7 };
const DESCRIPTION = { subgraphs: 3, inputs: 2, outputs: 3, units: 4, files: 6 };
const [NORMALIZATION, CALIBRATION] = [1, 2]; // kinds of process units
const LABELS = [2, 3]; // kinds of files: of an axis, of a value

class Table {
  constructor(bytes, start = null) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.start = start ?? this.view.getUint32(0, true);
  }

  // Where a field's value is, or null if it has its default.
  at(field) {
    const fields = this.start - this.view.getInt32(this.start, true);
    const place = 4 + 2 * field;
    const offset = place < this.view.getUint16(fields, true) ? this.view.getUint16(fields + place, true) : 0;
    return offset ? this.start + offset : null;
  }

  follow(at) {
    return at + this.view.getUint32(at, true);
  }

  byte(field) {
    const at = this.at(field);
    return at === null ? 0 : this.view.getUint8(at);
  }

  uint32(field) {
    const at = this.at(field);
    return at === null ? 0 : this.view.getUint32(at, true);
  }

  table(field) {
    const at = this.at(field);
    return at === null ? null : new Table(this.bytes, this.follow(at));
  }

  // Length and first place of a vector or a text.
  vector(field) {
    const at = this.at(field);
    if (at === null) return [0, 0];
    const start = this.follow(at);
    const length = this.view.getUint32(start, true);
    if (length > this.bytes.length) throw new RangeError("A vector is longer than its file.");
    return [length, start + 4];
  }

  tables(field) {
    const [length, first] = this.vector(field);
    return Array.from({ length }, (_, i) => new Table(this.bytes, this.follow(first + 4 * i)));
  }

  floats(field) {
    const [length, first] = this.vector(field);
    return Array.from({ length }, (_, i) => this.view.getFloat32(first + 4 * i, true));
  }

  int32s(field) {
    const [length, first] = this.vector(field);
    return Array.from({ length }, (_, i) => this.view.getInt32(first + 4 * i, true));
  }

  content(field) {
    const [length, first] = this.vector(field);
    return this.bytes.subarray(first, first + length);
  }

  text(field) {
    return new TextDecoder().decode(this.content(field));
  }
}

/** Scale and zero point of the first input and output, 0 where there are none; and the input's sizes. */
export function quantizationOf(bytes) {
  const [graph] = new Table(bytes).tables(MODEL.subgraphs);
  const tensors = graph.tables(GRAPH.tensors);
  const [input, output] = [GRAPH.inputs, GRAPH.outputs].map((field) => tensors[graph.int32s(field)[0]]);
  const signature = input.int32s(TENSOR.signature); // with -1 for sizes that vary
  return {
    input: quantization(input),
    output: quantization(output),
    sizes: signature.length ? signature : input.int32s(TENSOR.shape),
  };
}

function quantization(tensor) {
  const table = tensor.table(TENSOR.quantization);
  const [length, zeroPoint] = table?.vector(3) ?? [0, 0];
  return {
    scale: table?.floats(2)[0] ?? 0,
    zeroPoint: length ? Number(table.view.getBigInt64(zeroPoint, true)) : 0,
  };
}

/**
 * What MediaPipe's metadata say: `{ mean, std, labels, calibrated }`, of pixels in 0..255.
 *
 * `labels` is the name of a file; all are empty where there are no metadata.
 */
export function readDescription(bytes) {
  const found = { mean: [], std: [], labels: "", calibrated: false };
  const model = new Table(bytes);
  const entry = model.tables(MODEL.metadata).find((it) => it.text(ENTRY.name) === "TFLITE_METADATA");
  if (!entry) return found;
  // A copy, since its places count from its own start.
  const content = model.tables(MODEL.buffers)[entry.uint32(ENTRY.buffer)].content(0).slice();
  const [graph] = new Table(content).tables(DESCRIPTION.subgraphs);
  for (const unit of graph?.tables(DESCRIPTION.inputs).flatMap((it) => it.tables(DESCRIPTION.units)) ?? []) {
    if (unit.byte(0) !== NORMALIZATION) continue;
    [found.mean, found.std] = [unit.table(1).floats(0), unit.table(1).floats(1)];
  }
  for (const tensor of graph?.tables(DESCRIPTION.outputs) ?? []) {
    found.calibrated ||= tensor.tables(DESCRIPTION.units).some((it) => it.byte(0) === CALIBRATION);
    found.labels ||= tensor.tables(DESCRIPTION.files).find((it) => LABELS.includes(it.byte(2)))?.text(0) ?? "";
  }
  return found;
}
