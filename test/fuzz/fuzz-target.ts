/** A parser that eats foreign bytes, and what must hold for each input. */
import { isDeepStrictEqual } from "node:util";
import { describeError, KoError } from "../../lib/errors.ts";

export interface Target {
  readonly name: string;
  /** Valid inputs, from which mutations begin. */
  readonly seeds: readonly (string | Uint8Array)[];
  /** Words of the format, which mutations put in. */
  readonly words: readonly string[];
  /**
   * Prepares folders and servers.
   *
   * @param stack ends them
   */
  readonly open: (stack: AsyncDisposableStack) => Check | Promise<Check>;
}

/** Feeds the parser. @throws {Error} If a property does not hold. */
export type Check = (input: Uint8Array) => void | Promise<void>;

/** Separates the parts of an input for several files or answers. */
const SEPARATOR = "\n=====\n";

/** The characters that no message may bring to a terminal. */
const CONTROLS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/;

/**
 * Runs a parser that may refuse its input.
 *
 * @returns undefined if it refuses with a KoError that a terminal can show
 * @throws {Error} If it fails in another way.
 */
export async function tryParse<T>(parse: () => T | Promise<T>): Promise<T | undefined> {
  try {
    return await parse();
  } catch (error) {
    if (!(error instanceof KoError)) throw error;
    const text = describeError(error);
    if (CONTROLS.test(text)) {
      throw new Error(`the message has control characters: ${JSON.stringify(text)}`, { cause: error });
    }
    return undefined;
  }
}

/** @throws {Error} If the values differ. */
export function expectSame(found: unknown, wanted: unknown, what: string): void {
  if (isDeepStrictEqual(found, wanted)) return;
  const show = (value: unknown): string => Bun.inspect(value, { depth: 6 }).slice(0, 600);
  throw new Error(`${what}: found ${show(found)}, want ${show(wanted)}`);
}

export function textOf(input: Uint8Array): string {
  return new TextDecoder().decode(input);
}

/** Splits an input into its parts; missing ones are empty. */
export function partsOf(input: Uint8Array, count: number): readonly Uint8Array[] {
  const parts = Buffer.from(input).toString("latin1").split(SEPARATOR);
  return Array.from({ length: count }, (_, i) => new Uint8Array(Buffer.from(parts[i] ?? "", "latin1")));
}

/** Joins parts to an input for {@link partsOf}. */
export function joinParts(...parts: readonly string[]): string {
  return parts.join(SEPARATOR);
}
