/**
 * The lines of a container's log, and which of them were seen before a connection was cut.
 *
 * The API gives each line with its time. A log is read again from a whole second on, so its first lines repeat.
 * https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#get-read-log-of-the-specified-pod
 */

/** A line with its time. */
export interface LogLine {
  /** Nanoseconds since 1970, by the clock of the node. */
  readonly at: bigint;
  /** Without its end; of a long line the beginning, and an ellipsis. */
  readonly text: string;
  /** A hash of its time and its text. */
  readonly key: bigint;
}

/** A line as it is in the log. */
interface RawLine {
  readonly bytes: Uint8Array;
  readonly isCut: boolean;
}

/** Bytes of a line that are kept. */
const MAX_LINE = 16 * 1024;
/** Bytes of a time, and of the space behind it. */
const MAX_TIME = 64;
/** Of so many last lines, the hash says whether ko has shown a line. Of older lines, the time says it. */
const WINDOW = 4096;
const NEWLINE = 0x0a;
const TIME = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)$/;
const SECOND = 1_000_000_000n;

/** Cuts a stream of bytes into lines. It keeps no more of a line than is shown. */
export class LineSplitter {
  #parts: Uint8Array[] = [];
  #size = 0;
  #isCut = false;

  /** @returns the lines that end in the chunk */
  push(chunk: Uint8Array): readonly RawLine[] {
    const lines: RawLine[] = [];
    let from = 0;
    for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, from)) {
      this.#keep(chunk.subarray(from, end));
      lines.push(this.#take());
      from = end + 1;
    }
    // A copy: the chunk may be large, and this part of it stays.
    this.#keep(chunk.slice(from));
    return lines;
  }

  /** The bytes behind the last line end; undefined if there are none. */
  rest(): RawLine | undefined {
    return this.#size === 0 ? undefined : this.#take();
  }

  #keep(part: Uint8Array): void {
    const room = MAX_LINE + MAX_TIME - this.#size;
    if (part.length > room) this.#isCut = true;
    const kept = part.subarray(0, Math.max(0, room));
    if (kept.length === 0) return;
    this.#parts.push(kept);
    this.#size += kept.length;
  }

  #take(): RawLine {
    const [first = new Uint8Array(0), ...more] = this.#parts;
    const line = { bytes: more.length === 0 ? first : new Uint8Array(Buffer.concat(this.#parts)), isCut: this.#isCut };
    [this.#parts, this.#size, this.#isCut] = [[], 0, false];
    return line;
  }
}

const utf8 = new TextDecoder();

/** Reads a line; undefined if it has no time: it is a complaint of the node, or the end of a long line. */
export function readLogLine({ bytes, isCut }: RawLine): LogLine | undefined {
  const space = bytes.subarray(0, MAX_TIME).indexOf(0x20);
  const at = readTime(utf8.decode(bytes.subarray(0, space < 0 ? MAX_TIME : space)));
  if (at === undefined) return undefined;
  const all = space < 0 ? new Uint8Array(0) : bytes.subarray(space + 1);
  const isLong = isCut || all.length > MAX_LINE;
  const text = utf8.decode(all.subarray(0, MAX_LINE)).replace(/\r$/, "");
  // A cut may go through a character.
  return { at, key: Bun.hash(bytes), text: isLong ? `${text.replace(/\ufffd+$/, "")}…` : text };
}

/** @returns nanoseconds since 1970 */
function readTime(text: string): bigint | undefined {
  const [, seconds, fraction = "", zone] = TIME.exec(text) ?? [];
  const ms = Date.parse(`${seconds}${zone}`);
  return Number.isNaN(ms) ? undefined : BigInt(ms) * 1_000_000n + BigInt(fraction.padEnd(9, "0"));
}

/**
 * The lines of a container that were shown: the last ones by their hashes, those before by their time.
 *
 * Times alone do not tell: lines share them, and two streams of a program may write them out of order.
 */
export class SeenLines {
  readonly #keys = new BigUint64Array(WINDOW);
  readonly #times = new BigInt64Array(WINDOW);
  #count = 0;
  /** The latest time of lines that are no longer in the window. */
  #cut: bigint | undefined;
  #last: bigint | undefined;

  add({ at, key }: LogLine): void {
    const place = this.#count % WINDOW;
    if (this.#count >= WINDOW) this.#cut = latest(this.#cut, this.#times[place] ?? 0n);
    this.#keys[place] = key;
    this.#times[place] = at;
    this.#count += 1;
    this.#last = latest(this.#last, at);
  }

  /** Where to read on, for `sinceTime`; undefined before the first line. */
  get since(): string | undefined {
    if (this.#last === undefined) return undefined;
    // A second earlier: a line of another stream may be written late.
    return new Date(Number(this.#last / SECOND - 1n) * 1000).toISOString().replace(/\.\d+Z$/, "Z");
  }

  /** Begins to read again: the result tells which lines were seen. */
  replay(): Replay {
    const counts = new Map<bigint, number>();
    for (const key of this.#keys.subarray(0, Math.min(this.#count, WINDOW))) {
      counts.set(key, (counts.get(key) ?? 0) + 1);
    }
    return new Replay(counts, { cut: this.#cut, last: this.#last });
  }
}

interface ReplayLimits {
  readonly cut: bigint | undefined;
  readonly last: bigint | undefined;
}

/** A log that is read again: its first lines may have been seen, the others not. */
export class Replay {
  readonly #counts: Map<bigint, number>;
  readonly #limits: ReplayLimits;
  /** A line was not seen: times no longer tell. */
  #isNew = false;
  /** No further line was seen. */
  #isOver = false;

  constructor(counts: Map<bigint, number>, limits: ReplayLimits) {
    this.#counts = counts;
    this.#limits = limits;
  }

  /** Whether this line was seen. To be asked for each line, in their order. */
  has({ at, key }: LogLine): boolean {
    const { cut, last } = this.#limits;
    if (this.#isOver) return false;
    const count = this.#counts.get(key) ?? 0;
    if (count > 0) this.#counts.set(key, count - 1);
    if (count > 0 || (!this.#isNew && cut !== undefined && at <= cut)) return true;
    // A line that was written late may stand before one that was seen.
    this.#isNew = true;
    this.#isOver = last === undefined || at > last;
    return false;
  }
}

function latest(a: bigint | undefined, b: bigint): bigint {
  return a === undefined || b > a ? b : a;
}

/** Escape sequences of terminals: colours, moves of the cursor, titles. */
const ESCAPES = /\u001b(?:\[[0-?]*[ -/]*[@-~]|[\]P^_][^\u0007\u001b]*(?:\u0007|\u001b\\)|[ -/]*[0-OQ-Z\\`-~])/g;

/** Removes what a terminal would obey. What remains of it is escaped where it is printed. */
export function withoutEscapes(text: string): string {
  return text.includes("\u001b") ? text.replace(ESCAPES, "") : text;
}
