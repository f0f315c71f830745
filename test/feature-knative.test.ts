/**
 * Real input: the whole `config/` of `knative.dev/serving`, 41 files with CRDs of hundreds of kilobytes and ten
 * references. Resolved beside the original, checked byte for byte, and applied to a real API server; and its nine
 * programs, built in one call by the original ko and by ours, compared as in `feature-parity.test.ts`; two of them once
 * more with `ldflags` that are templates.
 *
 * Ours links the programs once, for all tests: half a minute of CPU.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { basename, join, relative } from "node:path";
import { type ApiServer, startApiServer } from "./helpers/cluster.ts";
import { findCounterparts, findKnativePrograms, KNATIVE, prepareKnative } from "./helpers/counterparts.ts";
import { type Base, pushBases } from "./helpers/oracle-bases.ts";
import {
  compareOutcomes,
  keepOriginal,
  keepOutcome,
  type Outcome,
  type Request,
  runKo,
  validateAll,
} from "./helpers/oracle.ts";
import { pullLayer } from "./helpers/registry-images.ts";
import { startRegistry, type TestRegistry } from "./helpers/registry.ts";
import { type Bench, makeBench } from "./helpers/world-bench.ts";
import { writeTree } from "./helpers/world-folders.ts";
import { ourCommand, output } from "./helpers/world-programs.ts";
import { readDocuments } from "./helpers/yaml.ts";

/** Milliseconds: a cold Go build cache costs six minutes of CPU, twice three of wall time, then come the links. */
const TIMEOUT = 30 * 60_000;

const programs = findCounterparts(["docker-registry", "ko", "crane", "etcd", "kube-apiserver", "kubectl"]);

/**
 * What a cluster takes on which none of Knative's webhooks and controllers run, namespaces apart; the CRDs of the rest
 * are other modules'.
 */
const OBJECTS = [
  ...["200-roles", "200-serviceaccount.yaml", "300-resources", "configmaps", "deployments"].map(
    (name) => `config/core/${name}`,
  ),
  "config/hpa-autoscaling",
];

/** A document of the input, without its `---` line. */
interface Source {
  /** Relative to the module. */
  readonly file: string;
  readonly text: string;
}

describe.skipIf(programs === undefined)("on Knative Serving", () => {
  let registry: TestRegistry;
  let base: Base;
  let tree: string;
  let bench: Bench;
  /** What `ko resolve -R -f config` gives. */
  let resolved: string;
  let sources: readonly Source[];

  beforeAll(async () => {
    [registry, tree] = await Promise.all([startRegistry(), prepareKnative()]);
    base = (await pushBases(registry.host)).oci;
    const config = `defaultBaseImage: ${base.reference}\n`;
    bench = makeBench({}, { host: registry.host, cwd: tree, config, plainGo: true });
    const { code, stdout, stderr } = await bench.ours(["resolve", "-R", "-f", "config"]);
    if (code !== 0) throw new Error(stderr);
    resolved = stdout;
    sources = await readSources(tree);
  }, TIMEOUT);

  afterAll(async () => {
    bench?.[Symbol.dispose]();
    await registry?.[Symbol.asyncDispose]();
  });

  test(
    "ko resolve: every document equals the original's",
    async () => {
      if (programs === undefined) throw new Error("no counterparts");
      const { ko } = programs;
      const args = ["resolve", "--sbom=none", "-R", "-f", "config"];
      const repository = `${registry.host}/original`;
      const env = { ...bench.env, KO_DOCKER_REPO: repository };
      const { text } = await keepOriginal(() => output([ko, ...args], { cwd: tree, env }), {
        ...{ ko, host: registry.host },
        inputs: [KNATIVE, base.digest, "defaultBaseImage", ...args],
      });
      const theirs = readDocuments(text, repository);
      expect(theirs).toHaveLength(59);
      expect(readDocuments(resolved, bench.repository)).toEqual([...theirs]);
    },
    TIMEOUT,
  );

  test("ko resolve: every document has the input's bytes outside its references", async () => {
    const image = new RegExp(`${RegExp.escape(bench.repository)}/(\\S+)-([0-9a-f]{32})@sha256:[0-9a-f]{64}`, "g");
    const paths = new Map<string, string>();
    for (const { text } of sources) {
      for (const [, path = ""] of text.matchAll(/ko:\/\/([^"\s]+)/g)) paths.set(md5(path.toLowerCase()), path);
    }
    let replaced = 0;
    const restored = resolved.replaceAll(image, (_all, _name, hash: string) => {
      replaced++;
      return `ko://${paths.get(hash)}`;
    });
    expect(replaced).toBe(10);
    expect(restored).not.toContain(registry.host);
    const outputs = split(restored);
    expect(outputs).toHaveLength(sources.length);
    for (const [i, { file, text }] of sources.entries()) expect({ file, text: outputs[i] }).toEqual({ file, text });
  });

  test(
    "ko build: nine programs, one of them a dependency's, equal the original's",
    async () => {
      const args = await findKnativePrograms(tree);
      expect(args).toHaveLength(9);
      const ours = await buildBeside(args, { id: "serving", builds: "" });
      expect(ours.references.map((reference) => reference.replace(/-[0-9a-f]{32}@/, "@"))).toEqual(
        args.map((path) => `serving/${basename(path)}@DIGEST`),
      );
    },
    TIMEOUT,
  );

  test(
    "ko build: two programs whose ldflags are templates equal the original's, and hold the values",
    async () => {
      const version = "k8s.io/client-go/pkg/version";
      const entry = (name: string, ldflags: string): string =>
        `- id: ${name}\n  main: ./cmd/${name}\n  env: [CGO_ENABLED=0]\n  ldflags:\n  - -s -w\n  - ${ldflags}\n`;
      const builds = [
        "builds:\n",
        entry("default-domain", `-X ${version}.gitVersion={{.Git.Tag}}-{{ slice .Git.FullCommit 0 12 }}`),
        entry("autoscaler-hpa", `-X '${version}.gitCommit={{ .Env.WHO }} at {{.Git.CommitDate}}'`),
      ].join("");
      const args = ["./cmd/default-domain", "./cmd/autoscaler-hpa"];
      const env = { WHO: "the test" };
      const ours = await buildBeside(args, { id: "templates", builds, env });
      const commit = (await output(["git", "rev-parse", "HEAD"], { cwd: tree, env: process.env })).trim();
      const texts = [`v0.0.0-${commit.slice(0, 12)}`, "the test at 2024-01-02T03:04:05Z"];
      for (const [i, text] of texts.entries()) {
        const [image, repository] = [ours.pulled[i], ours.repositories?.[i]];
        if (image?.kind !== "image" || repository === undefined) throw new Error("no image was pushed");
        const layer = await pullLayer(repository, image.layers.at(-1)?.digest ?? "");
        expect([i, Buffer.from(layer).includes(text)]).toEqual([i, true]);
      }
    },
    TIMEOUT,
  );

  test(
    "ko apply: everything is there; again: nothing changes; ko delete: all gone",
    async () => {
      await using server = await startApiServer();
      const files = OBJECTS.flatMap((name) => ["-f", name]);
      const env = { KUBECONFIG: server.kubeconfig };
      const first = await bench.ours(["apply", "-q", "-R", "-f", "config/core/100-namespace.yaml", ...files], { env });
      expect({ code: first.code, stderr: first.stderr }).toEqual({ code: 0, stderr: "" });
      const created = first.stdout.trimEnd().split("\n");
      const wanted = split(resolved).filter((_text, i) => OBJECTS.some((name) => sources[i]?.file.startsWith(name)));
      expect(created).toHaveLength(wanted.length + 1);
      expect(created.filter((line) => !line.endsWith(" created"))).toEqual([]);
      expect(await countKinds(server)).toEqual({ crds: 7, deployments: 5 });

      // Built and pushed twice, with the same digests.
      const stdin = wanted.join("---\n");
      expect(await server.kubectl(["diff", "-f", "-"], { stdin })).toEqual({ code: 0, stdout: "", stderr: "" });
      const versions = async (): Promise<string> => {
        const form = "jsonpath={range .items[*]}{.kind} {.metadata.name} {.metadata.resourceVersion}{'\\n'}{end}";
        return (await server.kubectl(["get", "-f", "-", "-o", form], { stdin })).stdout;
      };
      const before = await versions();
      expect(before.trimEnd().split("\n")).toHaveLength(wanted.length);
      const second = await bench.ours(["apply", "-q", "-R", ...files], { env });
      expect(await versions()).toBe(before);
      // kubectl calls some objects configured that the server finds unchanged: 1000m and 1 are two spellings to it.
      expect(second).toEqual(await server.kubectl(["apply", "-f", "-"], { stdin }));

      // Without controllers a namespace never ends: it stays out.
      const deleted = await bench.ours(["delete", "-R", ...files], { env });
      expect({ code: deleted.code, stderr: deleted.stderr }).toEqual({ code: 0, stderr: "" });
      expect(deleted.stdout.trimEnd().split("\n")).toHaveLength(created.length - 1);
      expect(await countKinds(server)).toEqual({ crds: 0, deployments: 0 });
    },
    TIMEOUT,
  );

  interface Built {
    readonly id: string;
    /** More of `.ko.yaml`. */
    readonly builds: string;
    readonly env?: Readonly<Record<string, string>>;
  }

  /** Builds with both, which must come to the same, and gives what ours pushed. */
  async function buildBeside(args: readonly string[], { id, builds, env = {} }: Built): Promise<Outcome> {
    if (programs === undefined) throw new Error("no counterparts");
    const { ko, crane } = programs;
    using work = writeTree({});
    const config = `defaultBaseImage: ${base.reference}\n${builds}`;
    const request: Request = {
      id,
      tree,
      args,
      base,
      env: { KOCACHE: bench.env["KOCACHE"] ?? "", ...env },
      config,
    };
    const options = { request, host: registry.host, work, cwd: tree };
    const { outcome: original } = await keepOutcome(
      () => runKo([ko, "build", "--sbom=none", ...args], { ...options, prefix: "original" }),
      {
        ...{ ko, host: registry.host },
        inputs: [KNATIVE, base.digest, config, ...args, ...Object.entries(env).map((pair) => pair.join("="))],
      },
    );
    // With the cache, and what it takes for the same go.
    const kept = ["KOCACHE", "KO_GO_PATH", "TEST_GO", "TEST_GO_CALLS"].map((name) => [name, bench.env[name] ?? ""]);
    const ours = await runKo([...ourCommand(), "build", "--sbom=none", ...args], {
      ...options,
      request: { ...request, env: { ...Object.fromEntries(kept), ...env } },
      prefix: "ours",
    });
    // crane reads the layers.
    expect(await compareOutcomes(ours, original, { base, withLayers: false })).toEqual([]);
    await validateAll(crane, ours);
    return ours;
  }

  async function countKinds(server: ApiServer): Promise<{ readonly crds: number; readonly deployments: number }> {
    const count = async (kind: string): Promise<number> => {
      const { code, stdout, stderr } = await server.kubectl(["get", kind, "-A", "-o", "name"]);
      if (code !== 0) throw new Error(stderr);
      return stdout.split("\n").length - 1;
    };
    return { crds: await count("customresourcedefinitions"), deployments: await count("deployments") };
  }
});

/** All documents of `config/`, in order. */
async function readSources(tree: string): Promise<readonly Source[]> {
  return (await yamlFiles(join(tree, "config"))).flatMap((file) => {
    return split(readFileSync(file, "utf8")).map((text) => ({ file: relative(tree, file), text }));
  });
}

/** The YAML below a folder as a walk finds it: by name, a folder's files where its name stands. */
async function yamlFiles(folder: string): Promise<readonly string[]> {
  const files = await Array.fromAsync(new Bun.Glob("**/*.yaml").scan({ cwd: folder, followSymlinks: true }));
  const key = (path: string): string => path.replaceAll("/", "\0");
  return files.sort((a, b) => (key(a) < key(b) ? -1 : 1)).map((path) => join(folder, path));
}

/** The documents of a stream that hold more than comments, without their `---` lines, each ended by one line end. */
function split(stream: string): readonly string[] {
  return stream
    .split(/^---\n/m)
    .filter((text) => /^[^#\n]/m.test(text))
    .map((text) => (text.endsWith("\n") ? text : `${text}\n`));
}

function md5(text: string): string {
  return new Bun.CryptoHasher("md5").update(text).digest("hex");
}
