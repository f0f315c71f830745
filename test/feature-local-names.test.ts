/**
 * What is printed, and which names are there afterwards, for every way to name images, every place that takes them and
 * every choice of tags: `ko build` with a real registry, dockerd, and containerd in a node of kind.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { rmSync } from "node:fs";
import { join } from "node:path";
import {
  startContainerd,
  type TestContainerd,
  type TestDaemon,
  tryStartDaemon,
  whyNoContainerd,
  writeDocker,
} from "./helpers/daemon.ts";
import { goMod, mainGo } from "./helpers/go.ts";
import { startRegistry, type TestRegistry, whyNoRegistry } from "./helpers/registry.ts";
import { type Tree, writeTree } from "./helpers/world-folders.ts";
import { runKoHere } from "./helpers/world-host.ts";
import { cleanEnvironment } from "./helpers/world-programs.ts";

const NAMERS = ["", "-P", "-B", "--bare"] as const;
type Namer = (typeof NAMERS)[number];
const TAGS = ["", "-t v1", "-t v1,v2", "--tag-only -t v1"] as const;
type Tags = (typeof TAGS)[number];

/** Places that say the same of tags. */
type Kind = "side-loaded" | "registry" | "layout" | "archive";

interface Place {
  readonly name: string;
  readonly kind: Kind;
  readonly args: readonly string[];
  readonly repository: string;
  /** By namer: the image's name. REPO is where the registry's names begin. */
  readonly names: Readonly<Record<Namer, string>>;
}

/** Of `example.com/app/cmd/hello`. */
const MD5 = new Bun.CryptoHasher("md5").update("example.com/app/cmd/hello").digest("hex");

function namesUnder(repository: string): Place["names"] {
  return {
    "": `${repository}/hello-${MD5}`,
    "-P": `${repository}/example.com/app/cmd/hello`,
    "-B": `${repository}/hello`,
    "--bare": repository,
  };
}

/** The hash keeps repositories of registries apart: what a daemon gets is named as people speak of it. */
const IN_DAEMON: Place["names"] = { ...namesUnder("ko.local"), "": "ko.local/example.com/app/cmd/hello" };
const NO_PUSH = { repository: "example.com/team", names: namesUnder("example.com/team") } as const;

const PLACES: readonly Place[] = [
  { name: "ko.local", kind: "side-loaded", args: [], repository: "ko.local", names: IN_DAEMON },
  {
    name: "ko.local/team",
    kind: "side-loaded",
    args: [],
    repository: "ko.local/team/",
    names: { ...namesUnder("ko.local/team"), "": "ko.local/team/example.com/app/cmd/hello" },
  },
  { name: "-L", kind: "side-loaded", args: ["-L"], repository: "", names: IN_DAEMON },
  {
    name: "-L with KO_DOCKER_REPO",
    kind: "side-loaded",
    args: ["-L"],
    repository: "registry.example.com/team",
    names: IN_DAEMON,
  },
  { name: "kind.local", kind: "side-loaded", args: [], repository: "kind.local", names: namesUnder("kind.local") },
  { name: "registry", kind: "registry", args: [], repository: "REPO", names: namesUnder("REPO") },
  { name: "layout", kind: "layout", args: ["--push=false", "--oci-layout-path=layout"], ...NO_PUSH },
  { name: "tarball", kind: "archive", args: ["--push=false", "--tarball=a.tar"], ...NO_PUSH },
  { name: "oci-archive", kind: "archive", args: ["--push=false", "--oci-archive=a.tar"], ...NO_PUSH },
];

/** What is printed for an image called NAME whose manifest has the digest sha256:HEX. */
const REFERENCES: Readonly<Record<Kind, Readonly<Record<Tags, string>>>> = {
  "side-loaded": {
    "": "NAME:HEX",
    "-t v1": "NAME:HEX",
    "-t v1,v2": "NAME:HEX",
    "--tag-only -t v1": "NAME:v1",
  },
  registry: {
    "": "NAME@sha256:HEX",
    "-t v1": "NAME:v1@sha256:HEX",
    "-t v1,v2": "NAME@sha256:HEX",
    "--tag-only -t v1": "NAME:v1",
  },
  layout: {
    "": "layout@sha256:HEX",
    "-t v1": "layout@sha256:HEX",
    "-t v1,v2": "layout@sha256:HEX",
    "--tag-only -t v1": "layout@sha256:HEX",
  },
  archive: {
    "": "NAME@sha256:HEX",
    "-t v1": "NAME:v1@sha256:HEX",
    "-t v1,v2": "NAME@sha256:HEX",
    "--tag-only -t v1": "NAME:v1",
  },
};

/** The tags that must be there. */
const THERE: Readonly<Record<Tags, readonly string[]>> = {
  "": ["latest"],
  "-t v1": ["v1"],
  "-t v1,v2": ["v1", "v2"],
  "--tag-only -t v1": ["v1"],
};

const canRun = whyNoRegistry() === undefined && whyNoContainerd() === undefined;
const stack = new AsyncDisposableStack();
afterAll(() => stack.disposeAsync());
let daemon: TestDaemon | undefined;
if (canRun) {
  daemon = await tryStartDaemon("classic");
  if (daemon !== undefined) stack.use(daemon);
}

describe.skipIf(daemon === undefined)("ko build: reference and names", () => {
  let registry: TestRegistry;
  let node: TestContainerd;
  let tree: Tree;
  let work: Tree;
  let env: Readonly<Record<string, string>>;
  let runs = 0;

  beforeAll(async () => {
    registry = stack.use(await startRegistry());
    node = stack.use(await startContainerd());
    tree = stack.use(writeTree({ "go.mod": goMod("example.com/app"), "cmd/hello/main.go": mainGo() }));
    work = stack.use(writeTree({ docker: null, "config/.ko.yaml": "defaultBaseImage: scratch\n" }));
    await writeDocker(work, { "kind-control-plane": node });
    const labels = "io.x-k8s.kind.cluster=kind,io.x-k8s.kind.role=control-plane";
    const line = { Names: "kind-control-plane", Labels: labels, State: "running", Status: "Up 3 minutes" };
    work.write({ ps: `${JSON.stringify(line)}\n` });
    env = {
      ...cleanEnvironment(work.path),
      PATH: `${work.at("bin")}:${process.env["PATH"] ?? ""}`,
      DOCKER_HOST: `unix://${daemon?.socket ?? ""}`,
      KOCACHE: work.at("cache"),
    };
  });

  async function request(path: string, options: BunFetchRequestInit = {}): Promise<unknown> {
    const response = await fetch(`http://docker${path}`, { ...options, unix: daemon?.socket ?? "" });
    if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
    return response.json();
  }

  /** What the daemon has, and has no more afterwards. */
  async function emptyDaemon(): Promise<readonly string[]> {
    const list = await request("/images/json");
    const tags = Array.isArray(list)
      ? list.flatMap((entry: { readonly RepoTags: readonly string[] | null }) => entry.RepoTags ?? [])
      : [];
    for (const tag of tags) await request(`/images/${tag}`, { method: "DELETE" });
    return tags;
  }

  /** What the node has, and has no more afterwards. */
  async function emptyNode(): Promise<readonly string[]> {
    // Kubernetes knows images by their IDs as well; that name is its own.
    const listed = (await node.ctr("images", "ls", "-q")).split("\n").filter((name) => name !== "");
    if (listed.length > 0) await node.ctr("images", "rm", ...listed);
    return listed.filter((name) => !name.startsWith("sha256:"));
  }

  async function registryNames(repository: string): Promise<readonly string[]> {
    const ask = async (path: string): Promise<Readonly<Record<string, unknown>>> => {
      const value: unknown = await fetch(`http://${registry.host}/v2/${path}`).then((response) => response.json());
      return typeof value === "object" && value !== null ? { ...value } : {};
    };
    const { repositories } = await ask("_catalog?n=1000");
    const names: string[] = [];
    for (const path of Array.isArray(repositories) ? repositories : []) {
      const name = `${registry.host}/${path}`;
      if (name !== repository && !name.startsWith(`${repository}/`)) continue;
      const { tags } = await ask(`${path}/tags/list`);
      for (const tag of Array.isArray(tags) ? tags : []) names.push(`${name}:${tag}`);
    }
    return names;
  }

  /** The names in the index of a layout. */
  function indexNames(text: string): readonly string[] {
    const index: unknown = JSON.parse(text);
    return JSON.stringify(index).match(/(?<="org\.opencontainers\.image\.ref\.name":")[^"]*/g) ?? [];
  }

  async function archiveNames(path: string): Promise<readonly string[]> {
    const files = await new Bun.Archive(await Bun.file(path).bytes()).files();
    const index = (await files.get("index.json")?.text()) ?? "";
    const saved: unknown = JSON.parse((await files.get("manifest.json")?.text()) ?? "[]");
    const tags = Array.isArray(saved) ? saved.flatMap((entry: { readonly RepoTags: string[] }) => entry.RepoTags) : [];
    // Both of its forms name the same.
    expect(tags.toSorted()).toEqual(indexNames(index).toSorted());
    return tags;
  }

  interface Found {
    readonly printed: string;
    readonly there: readonly string[];
  }

  async function build(place: Place, { namer, tags }: { namer: Namer; tags: Tags }): Promise<Found> {
    const repository = place.repository.replace("REPO", `${registry.host}/run${runs++}`);
    const words = [namer, ...tags.split(" ")].filter((word) => word !== "");
    const out = join(tree.path, "out");
    rmSync(out, { recursive: true, force: true });
    tree.write({ out: null });
    const args = place.args.map((arg) => arg.replace(/(?<==)(?=layout|a\.tar)/, `${out}/`));
    const { code, stdout, stderr } = await runKoHere(["build", "-q", ...args, ...words, "./cmd/hello"], {
      cwd: tree.path,
      env: { ...env, ...(repository === "" ? {} : { KO_DOCKER_REPO: repository }) },
    });
    if (code !== 0) throw new Error(`${words.join(" ")}: ${stderr}`);
    const there = [
      ...(await emptyDaemon()),
      ...(await emptyNode()),
      ...(place.kind === "registry" ? await registryNames(repository) : []),
      ...(place.kind === "layout" ? indexNames(await Bun.file(join(out, "layout/index.json")).text()) : []),
      ...(place.kind === "archive" ? await archiveNames(join(out, "a.tar")) : []),
    ];
    const plain = (text: string): string =>
      text
        .replace(repository, place.repository)
        .replace(out, "")
        .replace(/^\/layout/, "layout")
        .replace(/[0-9a-f]{64}/, "HEX");
    return { printed: plain(stdout), there: there.map(plain).sort() };
  }

  function expected({ kind, names }: Place, { namer, tags }: { namer: Namer; tags: Tags }): Found {
    const name = names[namer];
    // A side-loaded image has a tag for its content as well; in a registry the SBOM has one.
    const more = { "side-loaded": ["HEX"], registry: ["sha256-HEX.sbom"], layout: [], archive: [] }[kind];
    const there = [...THERE[tags], ...more].map((tag) => `${name}:${tag}`);
    // What containerd gets is named as Kubernetes looks for it: without a slash that is Docker Hub's.
    const full = name === "kind.local" ? there.map((one) => `docker.io/library/${one}`) : there;
    return { printed: `${REFERENCES[kind][tags].replace("NAME", name)}\n`, there: full.sort() };
  }

  test.each(PLACES.map((place) => [place.name, place] as const))("%s", async (_name, place) => {
    const found: Record<string, Found> = {};
    const wanted: Record<string, Found> = {};
    for (const namer of NAMERS) {
      for (const tags of TAGS) {
        found[`${namer} ${tags}`] = await build(place, { namer, tags });
        wanted[`${namer} ${tags}`] = expected(place, { namer, tags });
      }
    }
    expect(found).toEqual(wanted);
  });
});
