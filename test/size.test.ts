/** `ko size` on a real registry: it agrees with `go tool nm -size`, and with the layers, to the byte. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { packageOf } from "../lib/size-symbols.ts";
import { findCounterparts } from "./helpers/counterparts.ts";
import { goMod } from "./helpers/go.ts";
import { pull, pullLayer, pushImage, readList, readObject, splitReference } from "./helpers/registry-images.ts";
import { startRegistry, type TestRegistry } from "./helpers/registry.ts";
import { type Bench, makeBench } from "./helpers/world-bench.ts";
import { output } from "./helpers/world-programs.ts";

const programs = findCounterparts(["docker-registry"]);
const PATIENCE = 180_000;
const SMALL = 'package main\n\nimport "example.com/app/lib.v2"\n\nfunc main() { println(lib.Twice(21)) }\n';
const LARGE = SMALL.replace('import "', 'import (\n\t"net/http"\n\t"os"\n)\n\nimport "').replace(
  "println(",
  "http.Get(os.Args[0])\n\tprintln(",
);
const FILES = {
  "go.mod": goMod("example.com/app"),
  "lib.v2/lib.go": "package lib\n\n//go:noinline\nfunc Twice(n int) int { return 2 * n }\n",
  "cmd/web/main.go": LARGE,
  "cmd/web/kodata/page.txt": "the page\n",
};

let registry: TestRegistry;
const stack = new AsyncDisposableStack();

beforeAll(async () => {
  if (programs !== undefined) registry = stack.use(await startRegistry());
});

afterAll(() => stack.disposeAsync());

async function print(bench: Bench, args: readonly string[]): Promise<string> {
  const { code, stderr, stdout } = await bench.ours(args);
  if (code !== 0) throw new Error(stderr);
  return stdout;
}

async function platformOf(bench: Bench, reference: string): Promise<Readonly<Record<string, unknown>>> {
  const [image] = readList(readObject(JSON.parse(await print(bench, ["size", "--json", reference])))["images"]);
  const [platform] = readList(image?.["platforms"]);
  if (platform === undefined) throw new Error("no platform");
  return platform;
}

describe("packageOf()", () => {
  test.each([
    ["github.com/a/b.(*T).M", "github.com/a/b"],
    ["main.main", "main"],
    ["example.com/app/lib%2ev2.Twice", "example.com/app/lib.v2"],
    ["slices.Sort[go.shape.[]a/b.T]", "slices"],
    ["type:.eq.a/b.T", "(types and tables)"],
    ["go:itab.*os.File,io.Reader", "(types and tables)"],
    ["_cgo_init", "(others)"],
    [".dot", "(others)"],
    ["", "(others)"],
  ])("%j is of %j", (symbol, expected) => {
    expect(packageOf(symbol)).toBe(expected);
  });
});

describe.skipIf(programs === undefined)("ko size", () => {
  test(
    "DataDog/dd-trace-go#5103: agrees with go tool nm -size and with the layers, and tells two images apart",
    async () => {
      using bench = makeBench(FILES, { host: registry.host, plainGo: true });
      const large = (await print(bench, ["build", "-B", "-t", "large", "./cmd/web"])).trim();
      const size = await platformOf(bench, large);

      const image = await pull(large);
      if (image.kind !== "image") throw new Error("an index");
      const repository = splitReference(large);
      const layers = await Promise.all(
        image.layers.map(async ({ digest, size: compressed }) => {
          return { compressed, uncompressed: (await pullLayer(repository, digest)).byteLength };
        }),
      );
      expect([size["base"], size["kodata"], size["program"]]).toEqual([...layers]);

      const tar = await pullLayer(repository, image.layers[2]?.digest ?? "");
      await Bun.write(bench.work.at("layer.tar"), tar);
      await output(["tar", "-xf", "layer.tar"], { cwd: bench.work.path, env: process.env });
      const file = bench.work.at("ko-app/web");
      expect(size["file"]).toBe(Bun.file(file).size);
      const nm = await output(["go", "tool", "nm", "-size", file], { cwd: bench.tree.path, env: process.env });
      const symbols = nm.split("\n").flatMap((line) => {
        const [, bytes, name] = /^ *[0-9a-f]* +(\d+) \S (.*)$/.exec(line) ?? [];
        return name === undefined ? [] : [{ bytes: Number(bytes), name }];
      });
      expect(symbols.length).toBeGreaterThan(5000);
      const sum = (pattern: RegExp): number =>
        symbols.filter(({ name }) => pattern.test(name)).reduce((all, { bytes }) => all + bytes, 0);
      const modules = readObject(size["modules"]);
      const [std, own] = [readObject(modules["std"]), readObject(modules["example.com/app"])];
      expect(std["net/http"]).toBe(sum(/^net\/http\./));
      expect(std["crypto/tls"]).toBe(sum(/^crypto\/tls\./));
      expect(own).toEqual({ main: sum(/^main\./), "example.com/app/lib.v2": sum(/^example\.com\/app\/lib%2ev2\./) });
      const all = Object.values(modules).flatMap((each) => Object.values(readObject(each)).map(Number));
      expect(all.reduce((a, b) => a + b, 0)).toBe(sum(/^/));

      bench.tree.write({ "cmd/web/main.go": SMALL });
      const small = (await print(bench, ["build", "-B", "-t", "small", "./cmd/web"])).trim();
      const text = await print(bench, ["size", small, large]);
      expect(text).toMatch(new RegExp(`^ {4}net/http +\\+${String(std["net/http"])}$`, "m"));
      expect(text).toMatch(/^ {2}kodata +0 +0$/m);
      expect(await print(bench, ["size", large])).toMatch(/^ {4}std +\d+$/m);
    },
    PATIENCE,
  );

  test(
    "shows sections if the symbol table was removed, and refuses what ko did not make",
    async () => {
      using bench = makeBench({ ...FILES, "cmd/web/main.go": SMALL }, { host: registry.host, plainGo: true });
      const built = await print(bench, ["build", "-B", "--ldflags=-s", "--platform=linux/amd64", "./cmd/web"]);
      const { code, stderr, stdout } = await bench.ours(["size", built.trim()]);
      expect([code, stderr]).toEqual([0, expect.stringContaining("has no symbol table (-ldflags=-s)")]);
      expect(stdout).toMatch(/^ {4}\.text +\d+$/m);
      await pushImage(registry.host, { name: "alien", spec: { config: { os: "linux", config: {} } }, tag: "v1" });
      const alien = await bench.ours(["size", `${registry.host}/bases/alien:v1`]);
      expect([alien.code, alien.stdout, alien.stderr]).toEqual([
        1,
        "",
        expect.stringContaining("it was not made by ko, or another program has changed it"),
      ]);
    },
    PATIENCE,
  );

  test.each([
    [[], "IMAGE"],
    [["ko.local/x"], 'Cannot measure "ko.local/x": it is not in a registry'],
  ])("refuses %p", async (args, message) => {
    using bench = makeBench(FILES, { host: registry.host });
    const { code, stderr, stdout } = await bench.ours(["size", ...args]);
    expect([code, stdout]).toEqual([2, ""]);
    expect(stderr).toContain(message);
  });
});
