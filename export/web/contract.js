// What a file of this package says of itself, held against what can be: contract.py once more.

import { FileError } from "./archive.js";

const isCount = (value) => Number.isSafeInteger(value) && value >= 0;
const isPart = (value) => value === null || (typeof value === "number" && value >= 0 && value <= 1);
const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

const PREPROCESSING = {
  image_size: (value) => Array.isArray(value) && value.length === 2 && value.every(isCount),
  channels: isCount,
  resize: (value) => ["stretch", "crop"].includes(value),
  interpolation: (value) => ["nearest", "bilinear", "bicubic"].includes(value),
  crop: (value) => typeof value === "number" && value >= 0.01 && value <= 1,
};
const FIELDS = {
  recipe: (value) => typeof value === "string" && !/\p{C}/u.test(value),
  top1: isPart,
  agreement: isPart,
  images: (value) => value === null || isCount(value),
  trained_on: Array.isArray,
  sha256: (value) => typeof value === "string" && /^[0-9a-f]{64}$/.test(value),
};

/** The same, if it is one; else a FileError with the field's name. */
export function checkContract(contract) {
  if (!isObject(contract)) throw new FileError("its contract is no JSON object.");
  const { preprocessing = {} } = contract;
  if (!isObject(preprocessing)) throw new FileError("its preprocessing is no JSON object.");
  for (const [place, found, rules] of [["", contract, FIELDS], ["preprocessing ", preprocessing, PREPROCESSING]]) {
    for (const [name, isFit] of Object.entries(rules)) {
      if (Object.hasOwn(found, name) && !isFit(found[name])) {
        throw new FileError(`its ${place}${name} is ${JSON.stringify(found[name]).slice(0, 80)}.`);
      }
    }
  }
  const unknown = Object.keys(preprocessing).find((name) => !Object.hasOwn(PREPROCESSING, name));
  if (unknown !== undefined) throw new FileError(`its preprocessing has ${JSON.stringify(unknown).slice(0, 80)}.`);
  return contract;
}
