/**
 * `--debug` over several runs with one cache: each image is that of a build without the cache. `go install` of Delve gives
 * a binary that was compiled before; everything else is real.
 */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { chmodSync, mkdirSync, readFileSync, renameSync } from "node:fs";
import { join } from "node:path";
import { cacheFolder, findCounterparts } from "./helpers/counterparts.ts";
import { findDelve, goMod, mainGo } from "./helpers/go.ts";
import { randomIndex } from "./helpers/images.ts";
import { readList, readObject } from "./helpers/registry-images.ts";
import { type Bases, pushBases } from "./helpers/oracle-bases.ts";
import { type Case, differencesOf } from "./helpers/oracle.ts";
import { findFreePort, startRegistry, type TestRegistry } from "./helpers/registry.ts";
import { makeScene, type Outcome, type Scene, SETTLED_MS } from "./helpers/world-bench.ts";
import type { Files } from "./helpers/world-folders.ts";
import { output, runToEnd, start, waitUntil } from "./helpers/world-programs.ts";
import { writeToLayout } from "../lib/layout.ts";

const MAIN = `package main

import (
	"os"
	"time"
)

var version = "none"

func greet(n int) {
	os.Stderr.WriteString("hello " + version + "\\n")
}

func main() {
	for n := 0; ; n++ {
		greet(n)
		time.Sleep(10 * time.Millisecond)
	}
}
`;

const APP: Files = {
  "app/go.mod": goMod("example.com/app"),
  "app/cmd/web/main.go": MAIN,
  // Needs the runtime only, so that it is compiled for any platform in a moment.
  "app/cmd/worker/main.go": mainGo(),
  "app/cmd/other/main.go": mainGo("other"),
};
const CONFIG = `defaultBaseImage: scratch
builds:
- main: ./cmd/web
  ldflags: [-s, -w, -X main.version=v1]
  linux_capabilities: net_bind_service
- main: ./cmd/worker
  ldflags: -s -w
`;
/** Milliseconds: the first build for a platform compiles the runtime for it. */
const CASE_TIMEOUT = 600_000;

const counterparts = findCounterparts(["docker-registry", "ko", "crane"]);

let delve: string | undefined;
let scene: Scene | undefined;

beforeAll(async () => {
  delve = await findDelve();
}, 900_000);

afterEach(() => {
  scene?.[Symbol.dispose]();
  scene = undefined;
});

function build(...args: readonly string[]): readonly string[] {
  return ["build", "--push=false", "-B", "--sbom=none", ...args];
}

async function open(...args: readonly string[]): Promise<Scene> {
  const env = { GOFLAGS: "-buildvcs=false", TEST_DELVE: delve ?? "" };
  scene = makeScene(APP, { args: build("--debug", ...args), env });
  scene.work.write({ "config/.ko.yaml": CONFIG });
  await Bun.sleep(SETTLED_MS);
  return scene;
}

/** Runs ko, and compares with a run without a cache. */
async function run(of: Scene, args?: readonly string[]): Promise<Outcome> {
  const options = args === undefined ? {} : { args };
  const outcome = await of.run(options);
  const right = await of.reference(options);
  expect({ code: outcome.code, images: outcome.images }).toEqual({ code: right.code, images: right.images });
  if (outcome.code !== 0) throw new Error(outcome.stderr);
  return outcome;
}

const count = ({ go }: Outcome, word: string): number => go.filter((each) => each === word).length;

interface Unpacked {
  readonly config: Readonly<Record<string, unknown>>;
  /** Of the configuration. */
  readonly container: Readonly<Record<string, unknown>>;
  /** Path of each added layer, gzipped. */
  readonly layers: readonly string[];
}

/** The images of an OCI layout, in the order of their index. */
function readLayout(path: string): readonly Unpacked[] {
  const read = (digest: unknown): Readonly<Record<string, unknown>> =>
    readObject(JSON.parse(readFileSync(blob(digest), "utf8")));
  const blob = (digest: unknown): string => `${path}/blobs/${String(digest).replace(":", "/")}`;
  const [top] = readList(JSON.parse(readFileSync(`${path}/index.json`, "utf8")).manifests);
  const whole = read(top?.["digest"]);
  const manifests = "manifests" in whole ? readList(whole["manifests"]).map((each) => read(each["digest"])) : [whole];
  return manifests.map((manifest) => {
    const config = read(readObject(manifest["config"])["digest"]);
    const layers = readList(manifest["layers"]).map((layer) => blob(layer["digest"]));
    return { config, container: readObject(config["config"]), layers };
  });
}

/** Lines of `tar tv` with the numbers of users. */
async function listTar(path: string): Promise<readonly string[]> {
  const { stdout } = await runToEnd(["tar", "--numeric-owner", "-tvzf", path], { cwd: "/", env: { TZ: "UTC" } });
  return stdout
    .trimEnd()
    .split("\n")
    .map((line) => line.replaceAll(/ +/g, " "));
}

const DELVE_WORDS = ["exec", "--listen=:40000", "--headless", "--log", "--accept-multiclient", "--api-version=2", "--"];

describe("an image with --debug", () => {
  test("has Delve in a layer of its own, and its entrypoint", async () => {
    if (delve === undefined) return;
    const of = await open("./cmd/web");
    const layout = of.work.at("layout");
    const outcome = await of.run({ args: build("--debug", "./cmd/web", `--oci-layout-path=${layout}`) });
    expect(outcome.code).toBe(0);
    const [image] = readLayout(layout);
    expect(image?.container).toMatchObject({ Entrypoint: ["/ko-app/dlv", ...DELVE_WORDS, "/ko-app/web"] });
    expect(Object.keys(image?.container ?? {})).not.toContain("ExposedPorts");
    expect(readList(image?.config["history"]).map(({ comment }) => comment)).toEqual([
      "kodata contents, at $KO_DATA_PATH",
      "go build output, at /ko-app/web",
      "Delve debugger, at /ko-app/dlv",
    ]);
    const size = Bun.file(delve).size;
    expect(await listTar(image?.layers[2] ?? "")).toEqual([
      "dr-xr-xr-x 0/0 0 1970-01-01 00:00 ko-app",
      `-r-xr-xr-x 0/0 ${size} 1970-01-01 00:00 /ko-app/dlv`,
    ]);
    // The capabilities are the program's only.
    const hasCapability = async (at: number): Promise<boolean> => {
      const tar = Bun.gunzipSync(readFileSync(image?.layers[at] ?? ""));
      return Buffer.from(tar).includes("SCHILY.xattr.security.capability");
    };
    expect([await hasCapability(1), await hasCapability(2)]).toEqual([true, false]);
  });

  test("names the port that is given, and starts at once if that is wanted", async () => {
    if (delve === undefined) return;
    const of = await open("./cmd/web");
    const layout = of.work.at("layout");
    const flags = ["--debug", "--debug-port=2345", "--debug-continue", `--oci-layout-path=${layout}`];
    expect(await of.run({ args: build(...flags, "./cmd/web") })).toMatchObject({ code: 0 });
    const words = ["exec", "--continue", "--listen=:2345", ...DELVE_WORDS.slice(2)];
    expect(readLayout(layout)[0]?.container).toMatchObject({
      Entrypoint: ["/ko-app/dlv", ...words, "/ko-app/web"],
      ExposedPorts: { "2345/tcp": {} },
    });
  });

  test(
    "has a program with symbols, which is said once",
    async () => {
      if (delve === undefined) return;
      const of = await open("./cmd/worker", "--platform=linux/amd64,linux/arm64");
      const warning = "Warning: --debug leaves -s and -w out of ldflags: without symbols no breakpoint works\n";
      for (let i = 0; i < 2; i++) {
        const { code, stderr } = await of.run();
        expect([code, stderr.split(warning).length - 1]).toEqual([0, 1]);
      }
      const plain = await of.run({ args: build("./cmd/worker") });
      expect(plain.stderr).not.toContain("symbols");
    },
    CASE_TIMEOUT,
  );

  test("lists Delve in its SBOM", async () => {
    if (delve === undefined) return;
    const of = await open("./cmd/web");
    const args = ["build", "-B", "--push=false", "--debug", `--sbom-dir=${of.work.at("sbom")}`, "./cmd/web"];
    for (let i = 0; i < 2; i++) {
      expect(await of.run({ args })).toMatchObject({ code: 0 });
      const document = readObject(JSON.parse(readFileSync(of.work.at("sbom/web-linux-amd64.spdx.json"), "utf8")));
      const named = readList(document["packages"]).filter(({ name }) => name === "github.com/go-delve/delve");
      expect(named).toHaveLength(1);
      expect(JSON.stringify(named)).toContain("pkg:golang/github.com/go-delve/delve@v1.27.2?type=module");
    }
  });
});

describe("the cache", () => {
  test(
    "has Delve for the next run, which starts no go",
    async () => {
      if (delve === undefined) return;
      const of = await open("./cmd/worker", "./cmd/other", "--platform=linux/amd64,linux/arm64");
      const first = await of.run();
      expect([first.code, count(first, "install")]).toEqual([0, 2]);
      const second = await run(of);
      expect(second).toMatchObject({ go: [], images: first.images });
      of.tree.write({ "app/cmd/worker/main.go": mainGo("edited") });
      const edited = await run(of);
      expect([count(edited, "install"), edited.images === first.images]).toEqual([0, false]);
    },
    CASE_TIMEOUT,
  );

  test(
    "never gives the image of a run without --debug, or with other flags",
    async () => {
      if (delve === undefined) return;
      const of = await open("./cmd/worker");
      const variants = [
        [],
        ["--debug"],
        ["--disable-optimizations"],
        ["--debug", "--debug-continue"],
        ["--debug", "--debug-port=40000"],
        ["--debug", "--debug-port=40001"],
        ["--debug", "--compression=none"],
        ["--debug", "--compression=zstd"],
      ];
      const images = new Map<string, string>();
      for (const flags of variants) {
        const { images: printed } = await run(of, build(...flags, "./cmd/worker"));
        images.set(flags.join(" "), printed);
      }
      for (const flags of variants.toReversed()) {
        const again = await of.run({ args: build(...flags, "./cmd/worker") });
        expect(again).toMatchObject({ code: 0, go: [], images: images.get(flags.join(" ")) ?? "" });
      }
      expect(new Set(images.values()).size).toBe(variants.length);
    },
    CASE_TIMEOUT,
  );

  test("gives the layer of Delve to a run that compiles the program for another reason", async () => {
    if (delve === undefined) return;
    const of = await open("./cmd/worker");
    await of.run();
    const outcome = await run(of, build("--debug", "./cmd/other"));
    expect([count(outcome, "build"), count(outcome, "install")]).toEqual([1, 0]);
  });
});

describe("platforms that Delve does not run on", () => {
  test("are refused before anything is built, if there is no other", async () => {
    const of = await open();
    for (const platforms of ["linux/arm/v7", "linux/s390x,linux/arm/v7"]) {
      const outcome = await of.run({ args: build("--debug", "./cmd/web", `--platform=${platforms}`) });
      expect([outcome.code, count(outcome, "build"), count(outcome, "install")]).toEqual([2, 0, 0]);
      const names = platforms.includes(",")
        ? /linux\/s390x, linux\/arm\/v7|linux\/arm\/v7, linux\/s390x/
        : /linux\/arm\/v7/;
      expect(outcome.stderr).toMatch(names);
      expect(outcome.stderr).toContain(
        "Delve runs on linux/386, linux/amd64, linux/arm64, linux/ppc64le, windows/amd64",
      );
    }
  });

  test(
    "get the image of a run without --debug beside the others",
    async () => {
      if (delve === undefined) return;
      const of = await open();
      const [debugged, plain] = [of.work.at("debugged"), of.work.at("plain")];
      const platforms = "--platform=linux/amd64,linux/arm/v7";
      const outcome = await of.run({
        args: build("--debug", platforms, `--oci-layout-path=${debugged}`, "./cmd/worker"),
      });
      expect(outcome.code).toBe(0);
      expect(outcome.stderr).toContain(
        "Warning: example.com/app/cmd/worker: the image for linux/arm/v7 is built without a debugger, and optimized as " +
          "usual: Delve does not run there\n",
      );
      await of.run({ args: build(platforms, `--oci-layout-path=${plain}`, "./cmd/worker") });
      const of7 = (layout: string): Unpacked | undefined =>
        readLayout(layout).find(({ config }) => config["architecture"] === "arm");
      expect(of7(debugged)?.config).toEqual(of7(plain)?.config ?? {});
      expect(of7(debugged)?.container).toMatchObject({ Entrypoint: ["/ko-app/worker"] });
      const both = readLayout(debugged).map(({ layers }) => layers.length);
      expect(both.toSorted((a, b) => a - b)).toEqual([2, 3]);
    },
    CASE_TIMEOUT,
  );

  test(
    "may be Windows, whose paths are its own",
    async () => {
      if (delve === undefined) return;
      const of = await open();
      const base = of.work.at("base");
      const platform = { os: "windows", architecture: "amd64", "os.version": "10.0.17763.1" };
      const item = { built: await randomIndex({ platforms: [platform] }), name: "base:latest" };
      await writeToLayout(base, [item], { signal: new AbortController().signal });
      const layout = of.work.at("layout");
      const args = build("--debug", "--platform=windows/amd64", `--oci-layout-path=${layout}`, "./cmd/worker");
      const outcome = await of.run({ args, env: { KO_DEFAULTBASEIMAGE: `oci:${base}` } });
      if (outcome.code !== 0) throw new Error(outcome.stderr);
      const [image] = readLayout(layout);
      expect(image?.container).toMatchObject({
        Entrypoint: ["C:\\ko-app\\dlv.exe", ...DELVE_WORDS, "C:\\ko-app\\worker"],
      });
      const names = (await listTar(image?.layers.at(-1) ?? "")).map((line) => line.split(" ").at(-1));
      expect(names).toEqual(["Hives", "Files", "Files/ko-app", "Files/ko-app/dlv.exe"]);
    },
    CASE_TIMEOUT,
  );
});

test("a Delve that cannot be had is an error that names it, and nothing is printed", async () => {
  const of = await open("./cmd/web");
  // The module cache of the scene is empty, and GOPROXY is off.
  const outcome = await of.run({ env: { TEST_DELVE: "" } });
  expect([outcome.code, outcome.images]).toEqual([1, ""]);
  const target = "github.com/go-delve/delve/cmd/dlv@v";
  expect(outcome.stderr).toContain(`Cannot build Delve for linux/amd64 with go1.`);
  expect(outcome.stderr).toContain(`: go install ${target}`);
  expect(outcome.stderr).toContain("GOPROXY=off");
  expect(outcome.stderr).toContain(
    `\n  Fetch it once where a module proxy can be reached: GOPROXY=https://proxy.golang.org go install ${target}`,
  );
});

describe.skipIf(process.platform !== "linux" || process.arch !== "x64")("a session", () => {
  /** Builds with a free port, unpacks the image, and starts its entrypoint. */
  async function startImage(...flags: readonly string[]) {
    const of = await open();
    const port = await findFreePort();
    const layout = of.work.at("layout");
    const args = build("--debug", `--debug-port=${port}`, ...flags, `--oci-layout-path=${layout}`, "./cmd/web");
    const outcome = await of.run({ args });
    if (outcome.code !== 0) throw new Error(outcome.stderr);
    const [image] = readLayout(layout);
    of.work.write({ root: null });
    for (const layer of image?.layers ?? []) {
      await runToEnd(["tar", "-xzf", layer, "-C", of.work.at("root")], { cwd: "/", env: process.env });
    }
    const entrypoint = image?.container["Entrypoint"];
    if (!Array.isArray(entrypoint)) throw new Error("no entrypoint");
    const argv = entrypoint.map((word) => String(word).replace(/^\/ko-app\//, of.work.at("root/ko-app/")));
    const env = { PATH: process.env["PATH"], HOME: of.work.path };
    const server = start(argv, { cwd: of.work.path, env, ownGroup: true });
    const stop = {
      [Symbol.asyncDispose]: async () => {
        try {
          process.kill(-server.pid, "SIGKILL");
        } catch {
          // It has ended.
        }
        await server.result;
      },
    };
    const connect = (commands: readonly string[]) =>
      runToEnd([of.work.at("root/ko-app/dlv"), "connect", `127.0.0.1:${port}`], {
        cwd: of.work.path,
        env,
        stdin: `${commands.join("\n")}\n`,
      });
    return { server, stop, connect };
  }

  const HIT = /> \[Breakpoint 1\] main\.greet\(\) example\.com\/app\/cmd\/web\/main\.go:10 /;

  test("waits for a client, and stops at its breakpoint", async () => {
    if (delve === undefined) return;
    const { connect, server, stop } = await startImage();
    await using _stop = stop;
    await waitUntil(() => server.stdout().includes("API server listening"), server);
    expect(server.stderr()).not.toContain("hello");
    const { stdout } = await connect(["break main.greet", "continue", "print n", "print version", "exit", "y"]);
    expect(stdout).toMatch(HIT);
    expect(stdout).toContain('(dlv) 0\n(dlv) "v1"\n');
    await server.result;
  }, 120_000);

  test("with --debug-continue runs at once, and a client can come later", async () => {
    if (delve === undefined) return;
    const { connect, server, stop } = await startImage("--debug-continue");
    await using _stop = stop;
    await waitUntil(() => server.stderr().includes("hello v1\n"), server);
    const { stdout } = await connect(["break main.greet", "continue", "print version", "exit", "y"]);
    expect(stdout).toMatch(HIT);
    await server.result;
  }, 120_000);

  test("gives the program its own arguments, not Delve", async () => {
    if (delve === undefined) return;
    const args = ["--listen=x", "--", "y"].map((arg) => `--image-entrypoint-arg=${arg}`);
    const { connect, server, stop } = await startImage(...args);
    await using _stop = stop;
    await waitUntil(() => server.stdout().includes("API server listening"), server);
    const { stdout } = await connect(["break main.greet", "continue", "print os.Args[1:]", "exit", "y"]);
    expect(stdout.replace(/\s/g, "")).toContain('["--listen=x","--","y",]');
    await server.result;
  }, 120_000);
});

describe.skipIf(counterparts === undefined)("beside the original, which clones the same Delve", () => {
  let registry: TestRegistry;
  let bases: Bases;

  beforeAll(async () => {
    registry = await startRegistry();
    bases = await pushBases(registry.host);
  });

  afterAll(async () => {
    await registry?.[Symbol.asyncDispose]();
  });

  /** A folder with a `git` whose clones of Delve are the pinned module. The name is the same in each run. */
  async function makeGit(): Promise<string> {
    const target = "github.com/go-delve/delve@v1.27.2";
    const answer: unknown = JSON.parse(
      await output(["go", "mod", "download", "-json", target], { cwd: "/", env: process.env }),
    );
    const source = String(readObject(answer)["Dir"]);
    const folder = join(cacheFolder(), "delve", "git");
    const script = `#!/bin/sh
case " $* " in *" clone "*) exec cp -r --no-preserve=mode '${source}/.' . ;; esac
exec '${Bun.which("git")}' "$@"
`;
    mkdirSync(folder, { recursive: true });
    await Bun.write(join(folder, "git.new"), script);
    chmodSync(join(folder, "git.new"), 0o755);
    renameSync(join(folder, "git.new"), join(folder, "git"));
    return folder;
  }

  test.each<[string, Partial<Case>]>([
    ["a rich Docker base", { base: "rich-docker", args: [".", "--debug", "--image-user=1000"] }],
    ["an index", { base: "index", args: [".", "--debug", "--platform=linux/amd64,linux/arm64"] }],
  ])(
    "%s: the image differs in the bytes of Delve only",
    async (name, item) => {
      if (counterparts === undefined || delve === undefined) return;
      const PATH = `${await makeGit()}:${process.env["PATH"]}`;
      const id = name.toLowerCase().replaceAll(/[^a-z]+/g, "-");
      const debugged: Case = {
        name,
        files: { "go.mod": goMod("example.com/hello"), "main.go": mainGo() },
        args: [".", "--debug"],
        ...item,
      };
      const options = { host: registry.host, ko: counterparts.ko, crane: counterparts.crane, bases, id };
      const env = { PATH, GOFLAGS: "-buildvcs=false", SOURCE_DATE_EPOCH: "1700000000" };
      const lines = await differencesOf({ ...debugged, env }, options);
      // The version of the main module, which the linker writes into Delve, is no clone's.
      const expected =
        /config\.rootfs\.diff_ids\[(\d+)\]|manifest\.layers\[(\d+)\]\.digest|"\/ko-app\/dlv"\.(?:content|size)/;
      expect(lines.filter((line) => !expected.test(line))).toEqual([]);
      const last = lines.flatMap((line) => expected.exec(line)?.slice(1).filter(Boolean) ?? []);
      expect([last.length > 0, new Set(last).size]).toEqual([true, 1]);
    },
    CASE_TIMEOUT,
  );
});
