/**
 * `ko base check` and `ko base update` on a real registry: the digests are those that crane sees, and a build takes
 * the base that was written.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { findCounterparts } from "./helpers/counterparts.ts";
import { goMod, mainGo } from "./helpers/go.ts";
import { type ImageSpec, pull, pushImage, pushIndex, readObject } from "./helpers/registry-images.ts";
import { startRegistry, type TestRegistry } from "./helpers/registry.ts";
import { type Bench, makeBench } from "./helpers/world-bench.ts";
import { output, type Result } from "./helpers/world-programs.ts";

const programs = findCounterparts(["docker-registry", "skopeo", "crane"]);
const PATIENCE = 120_000;
const FILES = { "go.mod": goMod("example.com/app"), "cmd/web/main.go": mainGo("web") };

let registry: TestRegistry;
const stack = new AsyncDisposableStack();

beforeAll(async () => {
  if (programs !== undefined) registry = stack.use(await startRegistry());
});

afterAll(() => stack.disposeAsync());

/** An image whose bytes depend on its day. */
function image(day: number, architecture: string): ImageSpec {
  return { config: { os: "linux", architecture, created: `2026-0${day}-01T00:00:00Z`, config: {} } };
}

/** Pushes an index to `bases/NAME:v1`, and returns its digest. */
async function pushBase(name: string, day: number, architectures: readonly string[]): Promise<string> {
  const entries = architectures.map((architecture) => ({
    platform: { os: "linux", architecture },
    image: image(day, architecture),
  }));
  return (await pushIndex(registry.host, { name, spec: { entries } })).digest;
}

function open(config: string): Bench {
  return makeBench(FILES, { host: registry.host, config });
}

function textOf(bench: Bench): string {
  return readFileSync(bench.work.at("config/.ko.yaml"), "utf8");
}

async function base(bench: Bench, ...args: readonly string[]): Promise<Result> {
  return bench.ours(["base", ...args]);
}

describe.skipIf(programs === undefined)("ko base", () => {
  test(
    "agent-substrate/substrate#1498: pins every base, with its tag, and moves it when the tag moves",
    async () => {
      const [first, other] = [await pushBase("pin", 1, ["amd64", "arm64"]), await pushBase("other", 1, ["amd64"])];
      const [name, another] = [`${registry.host}/bases/pin:v1`, `${registry.host}/bases/other:v1`];
      const text = (one: string, two: string): string =>
        `# The bases.\ndefaultBaseImage:  ${one}  # for all\n\nbaseImageOverrides:\n  # Has a shell.\n  example.com/app/cmd/tool: "${two}"\n`;
      using bench = open(text(name, another));
      const before = await base(bench, "check");
      expect([before.code, before.stdout.match(/^\w+/gm)]).toEqual([0, ["unpinned", "unpinned"]]);

      const updated = await base(bench, "update");
      expect(updated.code).toBe(0);
      expect(textOf(bench)).toBe(text(`${name}@${first}`, `${another}@${other}`));
      expect(updated.stdout).toMatch(
        /\.ko\.yaml:2:20: \S+\/pin:v1@sha256:\w{64}\n\S*\.ko\.yaml:6:29: \S+\/other:v1@sha256:/,
      );
      expect((await base(bench, "check")).stdout.match(/^\w+/gm)).toEqual(["current", "current"]);

      const second = await pushBase("pin", 2, ["amd64"]);
      const crane = await output([programs?.crane ?? "", "digest", "--insecure", name], { cwd: "/", env: process.env });
      expect(crane.trim()).toBe(second);
      const old = await base(bench, "check");
      expect(old.code).toBe(3);
      expect(old.stdout).toContain(`: ${first} is now ${second}, made 2026-02-01\n          lost: linux/arm64\n`);
      const { stdout } = await base(bench, "check", "--json");
      expect(readObject(JSON.parse(stdout))).toEqual({
        version: 1,
        bases: [
          {
            base: `${name}@${first}`,
            from: [expect.stringMatching(/\.ko\.yaml:2:20$/)],
            status: "old",
            pinned: first,
            newest: second,
            created: "2026-02-01T00:00:00Z",
            lost: ["linux/arm64"],
            missing: [],
          },
          expect.objectContaining({ status: "current", newest: other }),
        ],
      });

      const moved = await base(bench, "update");
      expect(moved.stderr).toContain(`Warning: Base "${name}" has lost linux/arm64`);
      expect(textOf(bench)).toBe(text(`${name}@${second}`, `${another}@${other}`));
      const built = await bench.ours(["build", "-B", "--sbom=none", "./cmd/web"]);
      const pulled = await pull(built.stdout.trim());
      expect(readObject(JSON.parse(pulled.text))["annotations"]).toMatchObject({
        "org.opencontainers.image.base.name": `${registry.host}/bases/pin@${second}`,
      });
      expect((await base(bench, "update")).stdout).toBe("");
    },
    PATIENCE,
  );

  test("writes nothing if a newer image lacks a platform that is asked for", async () => {
    const first = await pushBase("lacks", 1, ["amd64", "arm64"]);
    const config = `defaultBaseImage: ${registry.host}/bases/lacks:v1@${first}\ndefaultPlatforms: [linux/amd64, linux/arm64]\n`;
    using bench = open(config);
    const second = await pushBase("lacks", 2, ["amd64"]);
    const { code, stderr, stdout } = await base(bench, "update");
    expect([code, stdout]).toEqual([1, ""]);
    expect(stderr).toContain(`lacks:v1": its newest image ${second} lacks linux/arm64\n`);
    expect(textOf(bench)).toBe(config);
    expect((await base(bench, "check")).stdout).toContain("          lacks: linux/arm64\n");
    expect((await base(bench, "update", "--platform=linux/amd64")).code).toBe(0);
    expect(textOf(bench)).toBe(config.replace(first, second));
  });

  test("knows a base that the registry has removed, one of a single image, and one without a tag", async () => {
    const { digest } = await pushImage(registry.host, { name: "single", spec: image(1, "amd64"), tag: "v1" });
    const gone = `sha256:${"0".repeat(64)}`;
    using bench = open(
      `defaultBaseImage: ${registry.host}/bases/single:v1@${gone}\n` +
        `baseImageOverrides: {example.com/a: '${registry.host}/bases/single@${digest}', example.com/b: scratch}\n`,
    );
    const { code, stdout } = await base(bench, "check");
    expect(code).toBe(3);
    expect(stdout).toMatch(/^old .*: sha256:0{64} is now sha256:.*\nuntagged .*: no tag says which is the newest\n$/);
    const updated = await base(bench, "update");
    expect(updated.stderr).toContain("is not updated: no tag says which is the newest");
    expect(textOf(bench)).toContain(`single:v1@${digest}\n`);
    expect(textOf(bench)).toContain(`single@${digest}'`);
  });

  test("tells how to change a variable, and writes no file for it", async () => {
    const digest = await pushBase("default", 1, ["amd64"]);
    const name = `${registry.host}/bases/default:v1`;
    using bench = open("# Mine.\nbuilds: []\n");
    const named = await bench.ours(["base", "update"], { env: { KO_DEFAULTBASEIMAGE: name } });
    expect(named.stderr).toContain(
      `KO_DEFAULTBASEIMAGE is not updated, because it is no file: write ${name}@${digest}`,
    );
    expect(textOf(bench)).toBe("# Mine.\nbuilds: []\n");
    expect(existsSync(bench.tree.at(".ko.yaml"))).toBe(false);
  });

  test("one base that cannot be read fails the command, and the file stays", async () => {
    await pushBase("sound", 1, ["amd64"]);
    const config = `defaultBaseImage: ${registry.host}/bases/sound:v1\nbaseImageOverrides: {example.com/a: '${registry.host}/bases/none:v1'}\n`;
    using bench = open(config);
    const { code, stderr, stdout } = await base(bench, "update");
    expect([code, stdout]).toEqual([1, ""]);
    expect(stderr).toContain("bases/none:v1");
    expect(textOf(bench)).toBe(config);
  });

  test.each([
    [["chek"], 'Cannot run "ko base chek": "ko base" has no such command, the nearest is "check"'],
    [[], 'Cannot run "ko base" without check | update | pull: it takes exactly 1 argument'],
    [["update", "--json"], 'Cannot use --json with "ko base update": it is for "ko base check"'],
    [["check", "--platform=linux/"], "--platform"],
    [["check", "--platform=cluster"], 'Cannot use --platform "cluster" here'],
  ])("refuses %p", async (args, message) => {
    using bench = open("defaultBaseImage: scratch\n");
    const { code, stderr, stdout } = await base(bench, ...args);
    expect([code, stdout]).toEqual([2, ""]);
    expect(stderr).toContain(message);
  });

  test(
    "builds without a network what ko base pull has kept, with the bytes of a build that has one",
    async () => {
      await pushBase("kept", 1, ["amd64", "arm64"]);
      const text = (mirror: string): string =>
        `defaultBaseImage: registry.test/bases/kept:v1\nregistries: {registry.test: {mirrors: ['${mirror}']}}\n`;
      using bench = open(text(registry.host));
      const cached = { KOCACHE: bench.work.at("kept") };
      const layout = ["--push=false", "--oci-layout-path"];
      const before = await bench.ours(["build", "--offline", ...layout, "none", "./cmd/web"], { env: cached });
      expect([before.code, before.stdout, before.stderr]).toEqual([
        1,
        "",
        expect.stringContaining('Cannot read "registry.test/bases/kept:v1" with --offline: the cache does not have it'),
      ]);

      const first = await bench.ours(["base", "pull", "--platform=all"], { env: cached });
      expect(first.stdout).toMatch(
        /^pulled  registry\.test\/bases\/kept:v1@sha256:\w{64} \(linux\/amd64, linux\/arm64\): /,
      );
      const again = await bench.ours(["base", "pull"], { env: cached });
      expect(again.stdout).toMatch(/^there   registry\.test\/bases\/kept:v1@sha256:\w{64} \(linux\/amd64\)\n$/);

      const online = await bench.ours(["build", ...layout, "online", "./cmd/web"]);
      bench.work.write({ "config/.ko.yaml": text("127.0.0.1:1") });
      const offline = await bench.ours(["build", "--offline", ...layout, "offline", "./cmd/web"], { env: cached });
      const day = new Date().toISOString().slice(0, 4);
      expect([offline.code, offline.stderr]).toEqual([
        0,
        expect.stringContaining(`Offline: registry.test/bases/kept:v1 is the image that it was on ${day}`),
      ]);
      expect(offline.stdout.replace("offline", "online")).toBe(online.stdout);
      const variable = await bench.ours(["build", ...layout, "offline", "./cmd/web"], {
        env: { ...cached, KO_OFFLINE: "1" },
      });
      expect(variable.stdout).toBe(offline.stdout);
    },
    PATIENCE,
  );

  test(
    "--offline refuses what is on another machine before it builds, and what this machine has works",
    async () => {
      using bench = open("defaultBaseImage: ko.builtin/static\n");
      const push = await bench.ours(["build", "--offline", "./cmd/web"], {
        env: { KO_DOCKER_REPO: "registry.test/me" },
      });
      expect([push.code, push.stdout, push.stderr]).toEqual([
        2,
        "",
        expect.stringContaining('Cannot push to "registry.test/me" with --offline: registry.test is another machine'),
      ]);
      const url = await bench.ours(["resolve", "--offline", "-f", "https://registry.test/x.yaml"]);
      expect([url.code, url.stderr]).toEqual([
        1,
        expect.stringContaining(
          'Cannot read "https://registry.test/x.yaml": --offline allows requests to this machine',
        ),
      ]);
      expect((await bench.ours(["build", "--offline", "./cmd/web"])).code).toBe(0);
      bench.work.write({ "config/.ko.yaml": `defaultBaseImage: ${registry.host}/bases/kept:v1\n` });
      const uncached = await bench.ours(["base", "pull"], { env: { KOCACHE: "off" } });
      expect([uncached.code, uncached.stdout, uncached.stderr]).toEqual([
        1,
        "",
        expect.stringContaining(": KOCACHE is off, or the cache cannot be used"),
      ]);
    },
    PATIENCE,
  );

  test(
    "says once a day that a release is built on a base that is not pinned",
    async () => {
      await pushBase("moving", 1, ["amd64"]);
      const name = `${registry.host}/bases/moving:v1`;
      using bench = open(`defaultBaseImage: ${name}\n`);
      const env = { KOCACHE: bench.work.at("cache") };
      const tells = async (...args: readonly string[]): Promise<boolean> =>
        (await bench.ours(["build", ...args, "./cmd/web"], { env })).stderr.includes(`Base ${name} is not pinned`);
      expect([await tells(), await tells("-t", "v1.2.3", "--push=false"), await tells("-t", "v1.2.3")]).toEqual([
        false,
        false,
        true,
      ]);
      expect(await tells("-t", "v1.2.4")).toBe(false);
    },
    PATIENCE,
  );
});
