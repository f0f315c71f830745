/** All targets, their corpus, and the input of each number. */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { digestOf, hexOf } from "../../lib/oci.ts";
import { makeInput, makeRandom } from "./fuzz-mutate.ts";
import type { Target } from "./fuzz-target.ts";
import { GO_TARGETS } from "./fuzz-targets-go.ts";
import { TEXT_TARGETS } from "./fuzz-targets-text.ts";
import { WIRE_TARGETS } from "./fuzz-targets-wire.ts";

export const TARGETS: readonly Target[] = [...TEXT_TARGETS, ...WIRE_TARGETS, ...GO_TARGETS];

/** A target with each kind of fault, which shows that they are found. It is fed only if it is named. */
const FAULTY: Target = {
  name: "faulty",
  seeds: ["hang", "grow", "die", "throw", "reject"],
  words: [" "],
  open: () => (input) => {
    switch (new TextDecoder().decode(input).trim()) {
      case "hang":
        for (;;);
      case "grow":
        for (const all: Uint8Array[] = []; ;) all.push(new Uint8Array(1e7).fill(1));
      case "die":
        return (process.kill(process.pid, "SIGSEGV"), undefined);
      case "reject":
        return void Promise.reject(new Error("nobody waits"));
      case "throw":
        throw new Error("a property does not hold");
      default:
        return undefined;
    }
  },
};

const CORPUS = join(import.meta.dir, "corpus");

/** Documents of the splice's own tests are inputs, too. */
const MORE_SEEDS: Readonly<Record<string, string>> = { yaml: join(import.meta.dir, "..", "fixtures", "yaml") };

/** The target of this name. */
export function findTarget(name: string): Target | undefined {
  return [...TARGETS, FAULTY].find((target) => target.name === name);
}

/** The inputs that failed once, by file name. */
export function readCorpus(target: Target): ReadonlyMap<string, Uint8Array> {
  const folder = join(CORPUS, target.name);
  const names = existsSync(folder) ? readdirSync(folder).toSorted() : [];
  return new Map(names.map((name) => [name, new Uint8Array(readFileSync(join(folder, name)))]));
}

/** Adds an input to the corpus, so that it is tried by each test run. @returns its path */
export function addToCorpus(name: string, input: Uint8Array): string {
  mkdirSync(join(CORPUS, name), { recursive: true });
  const path = join(CORPUS, name, hexOf(digestOf(input)).slice(0, 12));
  writeFileSync(path, input);
  return path;
}

/** Makes the inputs of a target: the same for the same seed, number and corpus. */
export function openInputs(target: Target, seed: number): (number: number) => Uint8Array {
  const more = MORE_SEEDS[target.name];
  const files = more === undefined ? [] : readdirSync(more).filter((name) => name.endsWith(".in"));
  const seeds = [
    ...target.seeds.map((text) => (typeof text === "string" ? new TextEncoder().encode(text) : text)),
    ...files.toSorted().map((name) => new Uint8Array(readFileSync(join(more ?? "", name)))),
    ...readCorpus(target).values(),
  ];
  return (number) => {
    const random = makeRandom(Number(Bun.hash(`${seed} ${target.name} ${number}`) & 0xffffffffn));
    return makeInput({ random, seeds, words: target.words });
  };
}

/** Makes a failing input smaller, as long as it fails. @param tries how often `fails` may be asked */
export async function minimize(
  input: Uint8Array,
  { fails, tries }: { readonly fails: (input: Uint8Array) => Promise<boolean>; readonly tries: number },
): Promise<Uint8Array> {
  let smallest = input;
  let left = tries;
  for (let size = Math.ceil(input.byteLength / 2); size >= 1 && left > 0; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let at = 0; at < smallest.byteLength && left > 0;) {
      const candidate = new Uint8Array(Buffer.concat([smallest.subarray(0, at), smallest.subarray(at + size)]));
      left--;
      if (await fails(candidate)) smallest = candidate;
      else at += size;
    }
  }
  return smallest;
}
