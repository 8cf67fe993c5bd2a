// What a .tflite says of its two ends, and what is taken where it doesn't: ends.py once more.

import { FileError } from "./archive.js";
import { quantizationOf } from "./flatbuffer.js";

// (mean, std) in pixels, and whether blue comes first: pixel_scale.py's.
const COMMON = {
  "0..255": { mean: [0], std: [1] },
  "0..1": { mean: [0], std: [255] },
  "-1..1": { mean: [127.5], std: [127.5] },
  imagenet: { mean: [123.675, 116.28, 103.53], std: [58.395, 57.12, 57.375] },
  caffe: { mean: [103.939, 116.779, 123.68], std: [1], bgr: true },
};
const NEAR = 0.05;

/** The one input and the one output of an image classifier, each with its quantization. */
export function endsOf(compiled, { bytes, name }) {
  const [inputs, outputs] = [compiled.getInputDetails(), compiled.getOutputDetails()];
  const shapes = [...inputs, ...outputs].map(({ dtype, shape }) => `${dtype} (${[...shape].join(", ")})`);
  const fits = inputs.length === 1 && outputs.length === 1
    && inputs[0].shape.length === 4 && outputs[0].shape.length === 2
    && inputs[0].shape[0] === 1 && [1, 3].includes(inputs[0].shape[3])
    && [inputs[0], outputs[0]].every(({ dtype }) => ["float32", "uint8"].includes(dtype));
  if (!fits) {
    throw new FileError(
      `“${name}” is no image classifier: one image (1, height, width, 1 or 3) of float32 or ` +
      `uint8 in, one row (1, classes) of the same out. Received: ${shapes.join(", ")}`);
  }
  const found = quantizationOf(bytes);
  if (Math.min(...found.sizes.slice(1)) < 1) {
    throw new FileError(`“${name}” takes images of any size: convert it with its height and width fixed.`);
  }
  const held = ({ dtype, shape }, quantization) => ({ dtype, shape, ...(dtype === "uint8" ? quantization : NONE) });
  return [held(inputs[0], found.input), held(outputs[0], found.output)];
}

const NONE = { scale: 0, zeroPoint: 0 };

/** Numbers that an end's integers stand for. */
export function numbersOf(row, { scale, zeroPoint }) {
  return scale ? row.map((value) => (value - zeroPoint) * scale) : row;
}

/**
 * What a file takes in place of each number of the pixels, and what is doubtful about it.
 *
 * `read` is a function of all pixels to a typed array of the input's kind.
 */
export function pixelsOf(input, description) {
  const bytes = input.dtype === "uint8";
  const { std = [] } = description ?? {};
  const same = (pixels) => (bytes ? Uint8Array : Float32Array).from(pixels);
  if (!description || (bytes && (!input.scale || std.length > 0))) return { read: same, doubt: "" };
  if (bytes) return ofIntegers(input);
  if (std.length > 0) {
    const range = { ...description, channels: input.shape[3] };
    return { read: (pixels) => Float32Array.from(scaled(pixels, range)), doubt: "" };
  }
  return { read: same, doubt: "Nothing in the file says what range its pixels have: 0..255 is taken." };
}

function ofIntegers({ scale, zeroPoint, shape }) {
  const span = [-zeroPoint * scale, (255 - zeroPoint) * scale];
  const ranges = Object.entries(COMMON).filter(([, { mean }]) => [1, shape[3]].includes(mean.length));
  const meant = ranges.find(([, it]) => misses(span, it) <= NEAR);
  const fit = ranges.filter(([, it]) => holds(it, span)).sort(([, a], [, b]) => width(a) - width(b));
  const [name, taken] = meant ?? fit[0] ?? ranges[0];
  const read = (pixels) => Uint8ClampedArray.from(
    scaled(pixels, { ...taken, channels: shape[3] }), (number) => roundToEven(number / scale) + zeroPoint);
  const told = span.map((end) => end.toPrecision(4)).join("..");
  const doubt = `The file’s integers stand for ${told}, so that pixels are likely of ${name}, which is taken.`;
  return { read: (pixels) => new Uint8Array(read(pixels)), doubt: meant ? "" : doubt };
}

function scaled(pixels, { mean, std, channels, bgr = false }) {
  const of = (numbers, channel) => numbers[numbers.length === 1 ? 0 : channel] ?? 0;
  return Array.from(pixels, (_, index) => {
    const channel = index % channels;
    const pixel = bgr ? pixels[index - channel + channels - 1 - channel] : pixels[index];
    return (pixel - of(mean, channel)) / of(std, channel);
  });
}

function spanOf({ mean, std }) {
  const ends = (pixel) => mean.map((it, channel) => (pixel - it) / (std[channel] ?? std[0]));
  return [Math.min(...ends(0)), Math.max(...ends(255))];
}

function width(range) {
  const [low, high] = spanOf(range);
  return high - low;
}

// By what part of a range its ends are missed.
function misses(span, range) {
  const [low, high] = spanOf(range);
  return Math.max(Math.abs(span[0] - low), Math.abs(span[1] - high)) / (high - low);
}

// Whether pixels can have given these numbers; 0 is always among a file's.
function holds(range, span) {
  const [low, high] = spanOf(range);
  const spare = NEAR * (high - low);
  return Math.min(low, 0) - spare <= span[0] && span[1] <= high + spare;
}

// As NumPy and LiteRT round.
function roundToEven(number) {
  const nearest = Math.round(number);
  return nearest - number === 0.5 && nearest % 2 !== 0 ? nearest - 1 : nearest;
}

/** How an image is fitted: as the file says, where it does. */
export function ruleOf({ shape: [, height, width, channels] }, { preprocessing }, name) {
  const shape = { image_size: [height, width], channels };
  const rule = { ...shape, resize: "stretch", interpolation: "bilinear", crop: 1, ...preprocessing };
  const fits = String(rule.image_size) === String(shape.image_size);
  if (fits && rule.channels === channels) return rule; // the rest is checked in contract.js
  throw new FileError(`“${name}” asks for images that it can't take: ${JSON.stringify(preprocessing)}`);
}

/** A name of its own for each class, and what there is to say of those in the file. */
export function namesOf(labels, count) {
  const fit = labels.length === count;
  const names = Array.from({ length: count }, (_, i) => (fit && printable(labels[i])) || `class ${i}`);
  const [taken, apart] = [new Set(names), []];
  for (let [i, name] of names.entries()) {
    if (names.indexOf(name) !== names.lastIndexOf(name)) {
      while (taken.has(name)) name = `${name} (${i})`;
      taken.add(name);
    }
    apart.push(name);
  }
  const doubt = fit || !labels.length ? ""
    : `The file names ${labels.length} classes and has ${count}: its names aren’t used.`;
  return { names: apart, doubt };
}

// What can't be shown, as Python writes it: terminal.py's `printable`.
function printable(text) {
  return text.replace(/[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu, (found) => {
    const short = { "\t": "\\t", "\n": "\\n", "\r": "\\r" }[found];
    const digits = found.codePointAt(0).toString(16);
    const [mark, length] = digits.length < 3 ? ["x", 2] : digits.length < 5 ? ["u", 4] : ["U", 8];
    return short ?? `\\${mark}${digits.padStart(length, "0")}`;
  });
}
