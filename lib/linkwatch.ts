/**
 * Notices that a linker has written its program, while go is still busy with it: go computes what the program's build id
 * is, writes that in, and moves the file. For a large program that takes a while, in which most of a machine is idle.
 *
 * It is a guess, for work that is checked later: where go keeps things in its work folder is its own affair.
 */
import { join } from "node:path";
import { look, readNames } from "./fingerprint.ts";

/** Milliseconds between two looks. */
const LOOK_MS = 20;
/** Milliseconds in which a file did not change that seems to be complete. */
const CALM_MS = 40;

export class LinkWatch implements Disposable {
  readonly #folder: string;
  readonly #now: () => number;
  readonly #onLinked: (path: string, size: number) => void;
  readonly #timer: ReturnType<typeof setInterval>;

  /**
   * @param folder the TMPDIR of a go that links one program
   * @param options.now milliseconds since 1970
   * @param options.onLinked is called once, with the absolute path of the linker's output and its bytes
   */
  constructor(
    folder: string,
    options: { readonly now: () => number; readonly onLinked: (path: string, size: number) => void },
  ) {
    this.#folder = folder;
    this.#now = options.now;
    this.#onLinked = options.onLinked;
    this.#timer = setInterval(() => this.#look(), LOOK_MS);
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }

  #look(): void {
    const work = readNames(this.#folder).find((name) => name.startsWith("go-build"));
    if (work === undefined) return;
    const path = join(this.#folder, work, "b001", "exe", "a.out");
    const found = look(path);
    if (found === undefined || !found.isFile() || found.size === 0 || this.#now() - found.mtimeMs < CALM_MS) return;
    this[Symbol.dispose]();
    this.#onLinked(path, found.size);
  }
}
