/**
 * Random inputs: valid ones with bytes flipped, pieces moved, repeated, taken from other inputs, and words of the format
 * put in. The same seed gives the same inputs.
 */

/** A generator of random numbers. */
export interface Random {
  /** An integer from 0 to below `end`. */
  below(end: number): number;
  /** An element of a list. @throws {RangeError} If the list is empty. */
  pick<T>(list: readonly T[]): T;
}

export interface MutateOptions {
  readonly random: Random;
  /** Valid inputs. */
  readonly seeds: readonly Uint8Array[];
  /** Words of the format. */
  readonly words: readonly string[];
}

/** Inputs are cut after so many bytes: long ones find nothing that short ones do not find, except by {@link repeat}. */
const MAX_BYTES = 64 * 1024;

/** Bytes and numbers at which parsers tend to be wrong. */
const ODD_BYTES = [0, 1, 9, 10, 13, 32, 34, 39, 45, 47, 58, 63, 64, 92, 123, 125, 127, 128, 191, 192, 239, 254, 255];
const ODD_NUMBERS = "-1 0 1 255 256 65535 65536 2147483648 4294967295 9007199254740993 18446744073709551616 1e999 0x7f";
const ODD_TEXTS = [
  ...ODD_NUMBERS.split(" "),
  ..."\0 \uFEFF \u00a0 \u2028 \ud83d\ude00 é \r\n \t \\ \\u0000 \\ud800 __proto__ constructor null true ~ NaN".split(
    " ",
  ),
  "",
  "\n",
  " ",
];

/** A generator for a seed, by splitmix32 (https://prng.di.unimi.it/splitmix64.c, in 32 bits). */
export function makeRandom(seed: number): Random {
  let state = seed | 0;
  const next = (): number => {
    state = (state + 0x9e3779b9) | 0;
    let mixed = state ^ (state >>> 16);
    mixed = Math.imul(mixed, 0x21f0aaad);
    mixed ^= mixed >>> 15;
    mixed = Math.imul(mixed, 0x735a2d97);
    return (mixed ^ (mixed >>> 15)) >>> 0;
  };
  const below = (end: number): number => Math.floor((next() / 2 ** 32) * end);
  return {
    below,
    pick: (list) => {
      const [found, ...none] = list.slice(below(list.length), undefined).slice(0, 1);
      if (found === undefined || none.length > 0) throw new RangeError("the list is empty");
      return found;
    },
  };
}

/** An input: a seed with up to eight mutations. One in twenty is a seed as it is, or nothing but words. */
export function makeInput({ random, seeds, words }: MutateOptions): Uint8Array {
  const start = random.below(20);
  if (start === 0) return random.pick(seeds);
  if (start === 1) return encode(Array.from({ length: random.below(40) }, () => random.pick(words)).join(""));
  let input = random.pick(seeds);
  const count = 1 + random.below(8);
  for (let i = 0; i < count; i++) input = mutate(input, { random, seeds, words });
  return input.subarray(0, MAX_BYTES);
}

function mutate(input: Uint8Array, { random, seeds, words }: MutateOptions): Uint8Array {
  const at = random.below(input.byteLength + 1);
  const length = random.below(Math.min(input.byteLength - at, 1 + random.below(64)) + 1);
  const other = random.pick(seeds);
  const from = random.below(other.byteLength + 1);
  switch (random.below(12)) {
    case 0:
      return splice(input, { at, length: 1, text: Uint8Array.of((input[at] ?? 0) ^ (1 << random.below(8))) });
    case 1:
      return splice(input, { at, length: 1, text: Uint8Array.of(random.pick(ODD_BYTES)) });
    case 2:
      return splice(input, { at, length });
    case 3:
      return splice(input, { at, length: 0, text: encode(random.pick(words)) });
    case 4:
      return splice(input, { at, length, text: encode(random.pick(words)) });
    case 5:
      return splice(input, { at, length: 0, text: encode(random.pick(ODD_TEXTS)) });
    case 6:
      return splice(input, { at, length, text: other.subarray(from, from + random.below(256)) });
    case 7:
      return repeat(input, { random, at, length });
    case 8:
      return swapLines(input, random);
    case 9:
      return replaceNumber(input, random);
    case 10:
      // Crossing: the beginning of one, the end of another.
      return splice(input, { at, length: input.byteLength, text: other.subarray(from) });
    default:
      return input.subarray(0, at);
  }
}

interface Splice {
  readonly at: number;
  /** The number of bytes that go. */
  readonly length: number;
  readonly text?: Uint8Array;
}

function splice(input: Uint8Array, { at, length, text = new Uint8Array() }: Splice): Uint8Array {
  return new Uint8Array(Buffer.concat([input.subarray(0, at), text, input.subarray(at + length)]));
}

/** Repeats a piece a few times; now and then thousands of times, which shows work that grows too fast. */
function repeat(
  input: Uint8Array,
  { random, at, length }: { readonly random: Random; readonly at: number; readonly length: number },
): Uint8Array {
  const piece = input.subarray(at, at + length);
  const times = random.below(16) === 0 ? 4000 : 1 + random.below(20);
  return splice(input, { at, length: 0, text: Buffer.concat(Array.from({ length: times }, () => piece)) });
}

function swapLines(input: Uint8Array, random: Random): Uint8Array {
  const lines = new TextDecoder("latin1").decode(input).split("\n");
  const [a, b] = [random.below(lines.length), random.below(lines.length)];
  const swapped = lines.map((line, i) => (i === a ? lines[b] : i === b ? lines[a] : line));
  return new Uint8Array(Buffer.from(swapped.join("\n"), "latin1"));
}

function replaceNumber(input: Uint8Array, random: Random): Uint8Array {
  const text = Buffer.from(input).toString("latin1");
  const numbers = [...text.matchAll(/\d+/g)];
  if (numbers.length === 0) return input;
  const found = random.pick(numbers);
  const number = random.pick(ODD_NUMBERS.split(" "));
  return splice(input, { at: found.index, length: found[0].length, text: encode(number) });
}

function encode(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}
