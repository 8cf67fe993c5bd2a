// The self-test that a .tflite carries: self_test.py once more. An accelerator may answer
// wrongly in silence, so a file is run once on a pattern that any language can draw, and
// the answer is held against the one of the run that was checked.

const KEY = "self_test"; // in the contract
const PRIME = 46337;

/** Squares of pseudo-random brightness: bytes (height, width, channels). Integers only. */
export function draw({ seed, cell, low, span }, [height, width, channels]) {
  const pixels = new Uint8Array(height * width * channels);
  let at = 0;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const cells = 7919 * Math.floor(y / cell) + 10007 * Math.floor(x / cell);
      for (let c = 0; c < channels; c++) {
        const h = (cells + 12553 * c + 15401 * seed) % PRIME;
        const v = ((((h * h) % PRIME) + 12345) % PRIME * h) % PRIME;
        pixels[at++] = low + Math.floor(((v % 256) * span) / 255);
      }
    }
  }
  return pixels;
}

/**
 * How an answer, one probability for each class, compares with the stored one:
 * `{ distance, tolerance, passed, expected, given }`.
 *
 * The distance is the total variation, half the sum of all absolute differences, 0..1.
 * `expected` and `given` are the most probable class of each and its probability.
 */
export function judge({ classes, probabilities, tolerance }, answer) {
  const stored = classes.map((index) => answer[index]);
  // What is not stored counts as one class.
  const rest = sum(answer) - sum(stored) - (1 - sum(probabilities));
  const differences = probabilities.map((probability, i) => Math.abs(stored[i] - probability));
  const distance = (sum(differences) + (stored.length === answer.length ? 0 : Math.abs(rest))) / 2;
  const [best, top] = [mostProbable(probabilities), mostProbable(answer)];
  return {
    distance,
    tolerance,
    passed: distance <= tolerance, // not of NaN
    expected: [classes[best], probabilities[best]],
    given: [top, answer[top]],
  };
}

/** Both answers of a verdict in words. */
export function explain({ distance, tolerance, expected, given }, labels) {
  const [right, wrong] = [expected, given].map(
    ([index, probability]) => `${labels[index]} ${(100 * probability).toFixed(1)}%`);
  return `expected ${right}, got ${wrong}, distance ${distance.toPrecision(2)} where ${tolerance} is allowed`;
}

/**
 * The self-test in a file's contract, or null where it carries none:
 * `{ pattern, classes, probabilities, tolerance }`.
 *
 * Throws an Error if it is damaged, or was made for another model.
 */
export function find(contract, numClasses) {
  if (!(KEY in contract)) return null;
  const { pattern, probabilities, tolerance, sha256, classes = probabilities?.map?.((_, index) => index) } =
    contract[KEY] ?? {};
  const whole = isPattern(pattern)
    && [probabilities, classes].every(Array.isArray)
    && probabilities.length === classes.length
    && classes.length > 0 && classes.length <= numClasses
    && probabilities.every(Number.isFinite)
    && classes.every((index) => Number.isInteger(index) && index >= 0 && index < numClasses)
    && typeof tolerance === "number" && tolerance > 0 && tolerance < 1;
  if (!whole) throw new Error("its self-test is damaged.");
  if (!sha256 || sha256 !== contract.sha256) throw new Error("its self-test is that of another model.");
  return { pattern, classes, probabilities, tolerance };
}

function isPattern(pattern) {
  const { seed, cell, low, span } = pattern ?? {};
  const whole = [seed, cell, low, span].every((number) => Number.isInteger(number) && number >= 0);
  return whole && seed < PRIME && cell > 0 && low + span <= 255;
}

function sum(numbers) {
  return numbers.reduce((total, number) => total + number, 0);
}

function mostProbable(probabilities) {
  return probabilities.reduce((top, probability, index) => (probability > probabilities[top] ? index : top), 0);
}
