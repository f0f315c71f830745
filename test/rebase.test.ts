/**
 * `ko rebase` on a real registry: the result has the digest that `ko build` of the same program gives on the new base.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { findCounterparts } from "./helpers/counterparts.ts";
import { goMod, mainGo } from "./helpers/go.ts";
import {
  type ImageSpec,
  isObject,
  pull,
  pullTags,
  pushImage,
  pushIndex,
  readObject,
} from "./helpers/registry-images.ts";
import { FaultProxy } from "./helpers/registry-fault-proxy.ts";
import { startRegistry, type TestRegistry } from "./helpers/registry.ts";
import { type Bench, makeBench } from "./helpers/world-bench.ts";
import { output } from "./helpers/world-programs.ts";

const programs = findCounterparts(["docker-registry", "crane"]);
const PATIENCE = 120_000;
const FILES = {
  "go.mod": goMod("example.com/app"),
  "cmd/web/main.go": mainGo("web"),
  "cmd/web/kodata/page.txt": "the page\n",
};
const PLATFORMS = "--platform=linux/amd64,linux/arm64";
const SETTINGS = `image:
  env: {MODE: fast, LANG: C}
  labels: {team: web}
  annotations: {team: web}
  ports: [8080]
  volumes: [/data]
  entrypointArgs: [--config=/etc/web.yaml]
  cmd: [serve]
  workdir: /data
  user: "1000"
  stopSignal: SIGINT
`;

let registry: TestRegistry;
let proxy: FaultProxy;
const stack = new AsyncDisposableStack();

beforeAll(async () => {
  if (programs === undefined) return;
  registry = stack.use(await startRegistry());
  proxy = stack.use(await FaultProxy.start(registry.host));
});

afterAll(() => stack.disposeAsync());

/** The two states of a base: another layer, time, PATH, user, label, and annotation. */
function image(day: number, architecture: string): ImageSpec {
  const path = day === 1 ? "/usr/bin:/bin" : "/usr/local/bin:/usr/bin";
  return {
    layers: day === 1 ? ["one"] : ["two", "three"],
    config: {
      os: "linux",
      architecture,
      created: `2026-0${day}-01T00:00:00Z`,
      config: {
        User: day === 1 ? "65532" : "65533",
        Env: [`PATH=${path}`, `LANG=${day}`, "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"],
        Cmd: ["sh"],
        Labels: { day: String(day), base: "yes" },
        ...(day === 1 ? {} : { StopSignal: "SIGQUIT" }),
      },
      history: [{ created: `2026-0${day}-01T00:00:00Z`, created_by: `day ${day}` }],
    },
    manifest: { annotations: { day: String(day) } },
  };
}

/** Moves `bases/NAME:v1` to the state of a day. */
async function moveBase(
  name: string,
  day: number,
  architectures: readonly string[] = ["amd64", "arm64"],
): Promise<string> {
  const order = day === 1 ? architectures : architectures.toReversed();
  const entries = order.map((architecture) => ({
    platform: { os: "linux", architecture },
    image: image(day, architecture),
  }));
  return (await pushIndex(registry.host, { name, spec: { entries } })).digest;
}

function open(name: string, more = ""): Bench {
  return makeBench(FILES, { host: proxy.host, config: `defaultBaseImage: ${proxy.host}/bases/${name}:v1\n${more}` });
}

async function print(bench: Bench, args: readonly string[], env: Readonly<Record<string, string>> = {}) {
  const { code, stderr, stdout } = await bench.ours(args, { env });
  if (code !== 0) throw new Error(stderr);
  return stdout.trim();
}

const digestIn = (reference: string): string => reference.replace(/^.*@/, "");

describe.skipIf(programs === undefined)("ko rebase", () => {
  test.each<[string, readonly string[], string, Readonly<Record<string, string>>]>([
    ["one platform of an index", [], "", {}],
    ["an index of two platforms", [PLATFORMS], "", {}],
    ["settings of images", [PLATFORMS], SETTINGS, {}],
    ["a variable PATH", [], "image: {env: {PATH: /opt/bin}}\n", {}],
    ["times", [PLATFORMS], "", { SOURCE_DATE_EPOCH: "1700000000", KO_DATA_DATE_EPOCH: "1600000000" }],
    ["zstd", ["--compression=zstd"], "", {}],
    ["plain layers", ["--compression=none"], "", {}],
    ["a file of its own name", [], "builds: [{main: ./cmd/web, binary: /usr/bin/web}]\n", {}],
  ])(
    "ko#358: gives the bytes of a build on the new base: %s",
    async (title, args, config, env) => {
      const name = title.replaceAll(" ", "-").toLowerCase();
      await moveBase(name, 1);
      using bench = open(name, config);
      const before = await print(bench, ["build", "-B", ...args, "./cmd/web"], env);
      await moveBase(name, 2);
      const calls = bench.goCalls().length;
      proxy.reset();
      const rebased = await print(bench, ["rebase", `${bench.repository}/web`]);
      expect(bench.goCalls().length).toBe(calls);
      // Layers are mounted or there. Configurations, and the SBOM of each image, are sent.
      const bodies = proxy.seen.filter(({ method, path }) => method === "PUT" && path.includes("/blobs/"));
      expect(bodies.length).toBeLessThanOrEqual(args.includes(PLATFORMS) ? 8 : 3);
      expect(
        await pullTags({ host: registry.host, path: bench.repository.replace(/^[^/]*\//, "") + "/web" }),
      ).toMatchObject({
        latest: digestIn(before),
      });
      const sbom = await pull(
        `${registry.host}/${bench.repository.replace(/^[^/]*\//, "")}/web:${digestIn(rebased).replace(":", "-")}.sbom`,
      );
      const built = await print(bench, ["build", "-B", ...args, "./cmd/web"], env);
      expect(rebased).toBe(built);
      expect(rebased).not.toBe(before);
      const again = await pull(
        `${registry.host}/${bench.repository.replace(/^[^/]*\//, "")}/web:${digestIn(rebased).replace(":", "-")}.sbom`,
      );
      expect(again.digest).toBe(sbom.digest);
      // crane reads gzip only.
      if (/zstd|plain/.test(title)) return;
      await output(
        [programs?.crane ?? "", "validate", "--insecure", "--remote", rebased.replace(proxy.host, registry.host)],
        {
          cwd: "/",
          env: process.env,
        },
      );
    },
    PATIENCE,
  );

  test(
    "ko#358: moves tags only if asked, says that there is nothing to do, and takes another base",
    async () => {
      await moveBase("tags", 1);
      using bench = open("tags");
      const path = `${bench.repository.replace(/^[^/]*\//, "")}/web`;
      const before = await print(bench, ["build", "-B", "-t", "v1", "--sbom=none", "./cmd/web"]);
      const same = await bench.ours(["rebase", `${bench.repository}/web:v1`]);
      expect([same.code, same.stdout.trim(), same.stderr]).toEqual([
        0,
        `${bench.repository}/web@${digestIn(before)}`,
        expect.stringContaining("already"),
      ]);
      await moveBase("tags", 2);
      const moved = await print(bench, ["rebase", "-t", "v1", `${bench.repository}/web:v1`]);
      // It had no SBOM, so it gets none.
      expect(await pullTags({ host: registry.host, path })).toEqual({ v1: digestIn(moved) });
      expect(digestIn(moved)).not.toBe(digestIn(before));

      await moveBase("other", 1);
      const other = `${proxy.host}/bases/other:v1`;
      const rebased = await print(bench, ["rebase", "--base", other, `${bench.repository}/web:v1`]);
      const built = await print(bench, ["build", "-B", "-t", "x", "--sbom=none", "./cmd/web"], {
        KO_DEFAULTBASEIMAGE: other,
      });
      expect(digestIn(rebased)).toBe(digestIn(built));
    },
    PATIENCE,
  );

  test(
    "ko#358: refuses what it cannot prove, before anything is pushed",
    async () => {
      const first = await moveBase("proof", 1);
      using bench = open("proof");
      const web = `${bench.repository}/web`;
      const reference = await print(bench, ["build", "-B", PLATFORMS, "./cmd/web"]);
      await moveBase("proof", 2, ["amd64"]);
      const fails = async (...args: readonly string[]): Promise<string> => {
        proxy.reset();
        const { code, stderr, stdout } = await bench.ours(["rebase", ...args]);
        expect([code, stdout]).toEqual([1, ""]);
        expect(proxy.seen.filter(({ method }) => method !== "GET" && method !== "HEAD")).toEqual([]);
        return stderr;
      };
      expect(await fails(web)).toMatch(/proof:v1@sha256:\w+ lacks linux\/arm64: it has linux\/amd64/);

      // Annotations that lie: another base, a config with other diffIDs, a setting that ko does not make.
      const pulled = await pull(reference.replace(proxy.host, registry.host));
      if (pulled.kind !== "index") throw new Error("no index");
      const [child] = pulled.children;
      if (child === undefined) throw new Error("no child");
      const annotations = readObject(readObject(JSON.parse(child.text))["annotations"]);
      const config = readObject(JSON.parse(child.configText));
      const forge = async (name: string, spec: ImageSpec): Promise<string> => {
        await pushImage(registry.host, { name, spec, tag: "v1" });
        return `${proxy.host}/bases/${name}:v1`;
      };
      expect(
        await fails(await forge("forged", { config, layers: ["x", "y", "z"], manifest: { annotations } })),
      ).toContain("its first layers are not those of the base that it names");
      const extra = { ...config, config: { ...(isObject(config["config"]) ? config["config"] : {}), Shell: ["x"] } };
      expect(
        await fails(await forge("extra", { config: extra, layers: ["one", "y", "z"], manifest: { annotations } })),
      ).toContain("not those that ko makes on the base that it names");
      expect(await fails(await forge("alien", image(1, "amd64")))).toContain("it does not name its base");

      bench.work.write({ "config/.ko.yaml": `defaultBaseImage: ${proxy.host}/bases/proof:v1@${first}\n` });
      const pinned = await print(bench, ["build", "-B", "./cmd/web"]);
      expect(await fails(pinned)).toContain(`--base ${proxy.host}/bases/proof:TAG`);
    },
    PATIENCE,
  );

  test.each([
    [[], "IMAGE"],
    [["ko.local/x"], 'Cannot rebase "ko.local/x": it is not in a registry'],
    [["oci:dist"], 'Cannot rebase "oci:dist": it is not in a registry'],
    [["x.test/y", "--sbom=cyclone"], 'Cannot use --sbom="cyclone": wanted spdx or none'],
    [["x.test/y", "-t", "a b"], "--tags"],
    [["x.test/y", "--base=a b"], 'Cannot read "a b" as a base image'],
  ])("refuses %p", async (args, message) => {
    using bench = open("none");
    const { code, stderr, stdout } = await bench.ours(["rebase", ...args]);
    expect([code, stdout]).toEqual([2, ""]);
    expect(stderr).toContain(message);
  });
});
