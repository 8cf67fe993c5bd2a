// Image files -> pixels that a model takes: export/keras_vit_device/pixels.py once more. Canvases
// resize as each browser likes, so Pillow's arithmetic is repeated here, to the last bit.

// Pillow rounds weights to 22 bits after the point, and each pass to bytes.
const WEIGHT_BITS = 22;
const FILTERS = {
  bilinear: { reach: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: { reach: 2, weight: cubic },
};

// Keys' cubic convolution with a = -1/2.
function cubic(x) {
  const a = -0.5;
  const t = Math.abs(x);
  if (t < 1) return ((a + 2) * t - (a + 3)) * t * t + 1;
  return t < 2 ? (((t - 5) * t + 8) * t - 4) * a : 0;
}

/** Decodes an image file whole: turned as its EXIF orientation says, alpha dropped. */
export async function openImage(file) {
  const bitmap = await createImageBitmap(file, {
    imageOrientation: "from-image",
    premultiplyAlpha: "none",
    colorSpaceConversion: "none", // Pillow leaves colour profiles alone
  });
  const image = readPixels(bitmap, bitmap.width, bitmap.height);
  if (isTranslucent(image.data)) readStraight(bitmap, image.data);
  bitmap.close();
  return image;
}

/** RGBA of an image or a video's present frame: `{ width, height, data }`. */
export function readPixels(source, width, height) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(source, 0, 0);
  return context.getImageData(0, 0, width, height);
}

function isTranslucent(rgba) {
  for (let at = 3; at < rgba.length; at += 4) if (rgba[at] < 255) return true;
  return false;
}

// A 2D canvas multiplies colours by alpha and so forgets those of transparent pixels;
// a texture keeps them. Without WebGL the forgetful ones stay.
function readStraight(bitmap, data) {
  const gl = new OffscreenCanvas(1, 1).getContext("webgl2");
  if (!gl || gl.getParameter(gl.MAX_TEXTURE_SIZE) < Math.max(bitmap.width, bitmap.height)) return;
  const texture = gl.createTexture();
  gl.bindTexture(gl.TEXTURE_2D, texture);
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, bitmap);
  gl.bindFramebuffer(gl.FRAMEBUFFER, gl.createFramebuffer());
  gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, texture, 0);
  gl.readPixels(0, 0, bitmap.width, bitmap.height, gl.RGBA, gl.UNSIGNED_BYTE, data);
  gl.getExtension("WEBGL_lose_context")?.loseContext();
}

/**
 * Resizes the middle of an image: bytes (height, width, channels).
 *
 * `rule` is what a .tflite of ours carries: image_size [height, width], channels 1 or 3,
 * resize "stretch" or "crop", interpolation, and crop, the part of each side to keep.
 */
export function fitImage(image, { image_size: [height, width], channels, resize, interpolation, crop }) {
  const pixels = channels === 1 ? grey(image.data) : colours(image.data);
  if (image.width === width && image.height === height && crop === 1) return pixels;
  let [keptWidth, keptHeight] = [image.width * crop, image.height * crop];
  if (resize === "crop") {
    const scale = Math.min(keptWidth / width, keptHeight / height);
    [keptWidth, keptHeight] = [Math.min(width * scale, keptWidth), Math.min(height * scale, keptHeight)];
  }
  const left = (image.width - keptWidth) / 2;
  const top = (image.height - keptHeight) / 2;
  const across = taps(image.width, left, left + keptWidth, width, interpolation);
  const down = taps(image.height, top, top + keptHeight, height, interpolation);
  // Pillow's order since version 13, as 800 sizes show; it rounds between its passes.
  if (image.height > height && image.height - height > 2 * (image.width - width)) {
    const lowered = resample(pixels, 1, image.height, image.width * channels, down);
    return resample(lowered, height, image.width, channels, across);
  }
  const narrowed = resample(pixels, image.height, image.width, channels, across);
  return resample(narrowed, 1, image.height, width * channels, down);
}

// ITU-R 601-2 luma in 16-bit fixed point.
function grey(rgba) {
  const luma = new Uint8Array(rgba.length / 4);
  for (let from = 0, to = 0; from < rgba.length; from += 4) {
    luma[to++] = (rgba[from] * 19595 + rgba[from + 1] * 38470 + rgba[from + 2] * 7471 + 0x8000) >> 16;
  }
  return luma;
}

function colours(rgba) {
  const rgb = new Uint8Array((rgba.length / 4) * 3);
  for (let from = 0, to = 0; from < rgba.length; from += 4) {
    for (let channel = 0; channel < 3; channel++) rgb[to++] = rgba[from + channel];
  }
  return rgb;
}

// For each of `size` results along an axis, the first pixel that it is made of and the
// weights of that and the next ones. The span [from, to) of the axis is resized.
function taps(length, from, to, size, interpolation) {
  from = Math.fround(from); // Pillow's boxes are 32-bit floats
  const scale = Math.fround(Math.fround(to) - from) / size;
  if (interpolation === "nearest") {
    let middle = from + scale * 0.5;
    return Array.from({ length: size }, () => {
      const first = Math.trunc(middle);
      middle += scale;
      return { first, weights: Int32Array.of(1 << WEIGHT_BITS) };
    });
  }
  const filter = FILTERS[interpolation];
  const stretch = Math.max(scale, 1); // a smaller image averages over all it covers
  return Array.from({ length: size }, (_, index) => {
    const middle = from + (index + 0.5) * scale;
    const first = Math.max(Math.trunc(middle - filter.reach * stretch + 0.5), 0);
    const end = Math.min(Math.trunc(middle + filter.reach * stretch + 0.5), length);
    const weights = Array.from({ length: end - first }, (_, k) =>
      filter.weight((first + k - middle + 0.5) * (1 / stretch)));
    const sum = weights.reduce((total, weight) => total + weight, 0);
    return { first, weights: Int32Array.from(weights, (weight) => fixed(weight / sum)) };
  });
}

// C's rounding, half away from zero.
function fixed(weight) {
  return Math.trunc(weight * (1 << WEIGHT_BITS) + (weight < 0 ? -0.5 : 0.5));
}

// Resizes the middle axis of (outer, length, inner).
function resample(pixels, outer, length, inner, tapsOf) {
  const result = new Uint8ClampedArray(outer * tapsOf.length * inner);
  for (let o = 0, to = 0; o < outer; o++) {
    for (const { first, weights } of tapsOf) {
      for (let i = 0; i < inner; i++) {
        let sum = 1 << (WEIGHT_BITS - 1);
        let from = (o * length + first) * inner + i;
        for (let k = 0; k < weights.length; k++, from += inner) sum += pixels[from] * weights[k];
        result[to++] = sum >> WEIGHT_BITS;
      }
    }
  }
  return result;
}
