// The ZIP archive behind the model of a .tflite: metadata.py once more.

const LOCAL_FILE = [0x50, 0x4b, 3, 4, 20, 0, 0, 0, 0, 0]; // as metadata.py writes it
const DIRECTORY_END = [0x50, 0x4b, 5, 6];
const DIRECTORY_END_REACH = 22 + 65535; // bytes before the end: itself and a comment

/** A mistake in a file; the message is for people. */
export class FileError extends Error {}

/** Functions to the bytes of an archive's files, by name, and where the archive starts. */
export function storedFiles(bytes) {
  const files = new Map();
  let start = bytes.length;
  const end = lastIndex(bytes, DIRECTORY_END);
  if (end < Math.max(0, bytes.length - DIRECTORY_END_REACH)) {
    if (lastIndex(bytes, LOCAL_FILE) >= 0) throw new FileError("The end is missing.");
    return { files, start };
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const [half, whole] = [(at) => view.getUint16(at, true), (at) => view.getUint32(at, true)];
  let entry = end - whole(end + 12);
  const shift = entry - whole(end + 16); // of an archive that counts from its own start
  for (let left = half(end + 10); left > 0; left--) {
    const [method, length, local] = [half(entry + 10), whole(entry + 24), whole(entry + 42) + shift];
    const [name, checksum] = [ascii(bytes, entry + 46, half(entry + 28)), whole(entry + 16)];
    files.set(name, () => {
      if (method !== 0) throw new FileError(`${name} is compressed.`);
      const first = local + 30 + half(local + 26) + half(local + 28);
      const content = bytes.subarray(first, first + length);
      if (crc32(content) !== checksum) throw new FileError(`${name} is damaged.`);
      return content;
    });
    start = Math.min(start, local);
    entry += 46 + half(entry + 28) + half(entry + 30) + half(entry + 32);
  }
  return { files, start };
}

function crc32(bytes) {
  let rest = -1;
  for (const byte of bytes) {
    rest ^= byte;
    for (let bit = 0; bit < 8; bit++) rest = (rest >>> 1) ^ (rest & 1 ? 0xedb88320 : 0);
  }
  return ~rest >>> 0;
}

function lastIndex(bytes, pattern) {
  for (let end = bytes.length; end > 0; ) {
    const at = bytes.subarray(0, end).lastIndexOf(pattern[0]);
    if (pattern.every((value, i) => bytes[at + i] === value)) return at;
    end = at;
  }
  return -1;
}

/** Bytes as text, a character each. */
export function ascii(bytes, start, length) {
  return String.fromCharCode(...bytes.subarray(start, start + length));
}
