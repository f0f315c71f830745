import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { KoError } from "../lib/errors.ts";
import { minimize, openInputs, readCorpus, TARGETS } from "./fuzz/fuzz-inputs.ts";
import { joinParts, partsOf, tryParse } from "./fuzz/fuzz-target.ts";
import { rejectionOf } from "./helpers/failures.ts";
import { writeTree } from "./helpers/world-folders.ts";
import { runToEnd } from "./helpers/world-programs.ts";

/** Random inputs of each target, beside its corpus. `npm run fuzz` tries more. */
const COUNT = 20;

describe("the parsers of foreign bytes", () => {
  test.each(TARGETS.map((target) => [target.name, target] as const))(
    "%s holds its properties",
    async (_name, target) => {
      await using stack = new AsyncDisposableStack();
      const check = await target.open(stack);
      const inputOf = openInputs(target, 1);
      const inputs = new Map([
        ...readCorpus(target),
        ...Array.from({ length: COUNT }, (_, i) => [`number ${i}`, inputOf(i)] as const),
        ...target.seeds.map((seed, i) => [`seed ${i}`, typeof seed === "string" ? Buffer.from(seed) : seed] as const),
      ]);
      for (const [name, input] of inputs) {
        try {
          await check(input);
        } catch (error) {
          throw new Error(`${target.name}, ${name}: ${JSON.stringify(Buffer.from(input).toString("latin1"))}`, {
            cause: error,
          });
        }
      }
    },
  );
});

describe("the inputs", () => {
  test("are the same for the same seed and number, and differ else", () => {
    const [target] = TARGETS;
    if (target === undefined) throw new Error("there is no target");
    const inputsOf = (seed: number): readonly string[] => {
      const inputOf = openInputs(target, seed);
      return Array.from({ length: 20 }, (_, i) => Buffer.from(inputOf(i)).toString("hex"));
    };
    expect(inputsOf(7)).toEqual(inputsOf(7));
    expect(inputsOf(7)).not.toEqual(inputsOf(8));
    expect(new Set(inputsOf(7)).size).toBeGreaterThan(15);
  });

  test("have parts", () => {
    const bytes = new TextEncoder().encode(joinParts("a", "", "b"));
    expect(partsOf(bytes, 4).map((part) => Buffer.from(part).toString())).toEqual(["a", "", "b", ""]);
  });
});

describe("minimize()", () => {
  const bytes = new TextEncoder().encode(`${"x".repeat(1000)}ab${"y".repeat(1000)}c`);
  const fails = async (input: Uint8Array): Promise<boolean> => /a.*c/s.test(Buffer.from(input).toString());

  test("leaves the bytes that matter", async () => {
    expect(Buffer.from(await minimize(bytes, { fails, tries: 1000 })).toString()).toBe("ac");
  });

  test("ends after its tries with an input that fails", async () => {
    expect(await fails(await minimize(bytes, { fails, tries: 3 }))).toBe(true);
  });
});

describe("tryParse()", () => {
  const fail = (error: Error) => (): never => {
    throw error;
  };

  test("takes a refusal", async () => {
    expect(await tryParse(fail(new KoError("Cannot read x: no")))).toBeUndefined();
  });

  test("does not take another error", async () => {
    expect(await rejectionOf(tryParse(fail(new TypeError("x is undefined"))))).toBeInstanceOf(TypeError);
  });
});

describe("npm run fuzz", () => {
  const script = new URL("fuzz/fuzz.ts", import.meta.url).pathname;
  const run = (...args: readonly string[]): ReturnType<typeof runToEnd> =>
    runToEnd([process.execPath, "--no-env-file", script, ...args], { cwd: import.meta.dir, env: process.env });

  test("feeds the targets for the given time, and counts", async () => {
    const { code, stdout } = await run("--time=0.5s", "--seed=3", "go-flags", "reference");
    expect(stdout).toMatch(
      /^seed 3, 0\.5 s, 2 targets: go-flags reference\ngo-flags: \d+ inputs\nreference: \d+ inputs\n0 found in \d+ inputs, \d+ s, seed 3\n$/,
    );
    expect(code).toBe(0);
  });

  test.each([
    ["hang", /^slow: more than 4000 ms\n$/],
    ["grow", /^memory: \d+ MB\n$/],
    ["die", /^the process ended with SIGSEGV/],
    ["throw", /^faulty: Error: a property does not hold\n$/],
    ["reject", /^faulty: unhandled: nobody waits\n$/],
  ])("finds inputs that let a parser %s", async (fault, message) => {
    using tree = writeTree({ input: fault });
    const { code, stdout } = await run("--memory=200", `--replay=${tree.at("input")}`, "faulty");
    expect(stdout).toMatch(message);
    expect(code).toBe(1);
  });

  test("is told which targets there are", async () => {
    const { code, stderr } = await run("nothing");
    expect(stderr).toContain('Cannot fuzz "nothing": the targets are yaml,');
    expect(code).toBe(1);
    const guide = readFileSync(new URL("../docs/contributing.md", import.meta.url), "utf8");
    for (const { name } of TARGETS) expect(guide).toContain(`\`${name}\``);
  });
});
