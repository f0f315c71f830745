/**
 * The world of a mutation: a Go module with everything around it that go looks at, which one mutation changes and which is
 * put back afterwards. ko runs in this process, with the cache and without.
 */
import {
  chmodSync,
  existsSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  type Stats,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { type Files, type Tree, writeTree } from "../helpers/world-folders.ts";
import { realHost, runKoHere } from "../helpers/world-host.ts";
import { output } from "../helpers/world-programs.ts";

/** One change of the world. */
export interface Mutation {
  /** A sentence: what is changed. */
  readonly name: string;
  readonly change: (world: World) => unknown;
  /** What go makes of it, for the test to be about something. */
  readonly makes: "the same" | "another" | "an error" | "any";
}

/** Mutations of equal worlds. */
export interface MutationGroup {
  readonly name: string;
  /** Below the world's folder. "app" is the working directory. */
  readonly files: Files;
  /** On top of the usual variables. */
  readonly env?: (world: World) => Readonly<Record<string, string>>;
  /** Runs once, before the first build. */
  readonly prepare?: (world: World) => unknown;
  /** What follows `ko build`. @default "./cmd/app" */
  readonly args?: readonly string[];
  /** The calls of go in a run with nothing changed. @default none */
  readonly asks?: readonly string[];
  readonly mutations: readonly Mutation[];
}

export interface World extends Disposable {
  readonly tree: Tree;
  /** The environment of the next runs; put back after a mutation. */
  env: Record<string, string>;
  /** Arguments and flags of the next runs; put back after a mutation. */
  args: readonly string[];
  /** An absolute path. */
  at(path: string): string;
  read(path: string): string;
  write(files: Files): void;
  remove(...paths: readonly string[]): void;
  /** Replaces a text, which must be there. */
  edit(path: string, from: string, to: string): void;
  append(path: string, text: string): void;
  /** Runs git in the folder "app". */
  git(...args: readonly string[]): Promise<string>;
  go(...args: readonly string[]): Promise<string>;
}

/** What a run printed: a digest for each image, or "FAILED". */
export interface Run {
  readonly images: string;
  readonly stderr: string;
  /** The first words of the calls of go. */
  readonly go: readonly string[];
}

const CONFIG = "defaultBaseImage: scratch\ndefaultLdflags: [-s, -w]\n";

/** An open world, its cache, and its state before a mutation. */
export class Stage implements Disposable {
  readonly world: World;
  readonly #state: Tree = writeTree({ docker: null });
  readonly #env: Readonly<Record<string, string>>;
  readonly #args: readonly string[];
  readonly #before = new Map<string, Kept>();

  static async open(group: MutationGroup): Promise<Stage> {
    const stage = new Stage(group);
    await group.prepare?.(stage.world);
    stage.#keep(stage.world.tree.path);
    return stage;
  }

  private constructor({ args = ["./cmd/app"], env, files }: MutationGroup) {
    const tree = writeTree({ "home/.gitconfig": "", "app/.ko.yaml": CONFIG, ...files });
    this.#args = args;
    this.world = openWorld(tree, { env: { ...plainEnvironment(tree), KOCACHE: this.#state.at("cache") }, args });
    Object.assign(this.world.env, env?.(this.world));
    this.#env = { ...this.world.env };
  }

  /** Runs ko. @param cache false: anew */
  async run({ cache }: { readonly cache: boolean }): Promise<Run> {
    const { args, env: own } = this.world;
    const env = { ...own, DOCKER_CONFIG: this.#state.at("docker"), ...(cache ? {} : { KOCACHE: "off" }) };
    const cwd = this.world.at("app");
    const go: string[] = [];
    const run: typeof realHost.run = (argv, options = {}) => {
      if (/(?:^|\/)go$/.test(argv[0] ?? "")) go.push(argv[1] ?? "");
      return realHost.run(argv, { cwd, env, signal: realHost.signal, ...options });
    };
    const words = ["build", "-q", "--push=false", "-B", ...args];
    const { code, stderr, stdout } = await runKoHere(words, { cwd, env, host: { run } });
    return { images: code === 0 ? (stdout.match(/sha256:[0-9a-f]{64}/g) ?? []).join(" ") : "FAILED", stderr, go };
  }

  /** Puts files, environment and arguments back. */
  undo(): void {
    this.world.env = { ...this.#env };
    this.world.args = this.#args;
    const root = this.world.tree.path;
    removeOthers(root, this.#before);
    for (const [path, kept] of this.#before) putBack(path, kept);
  }

  #keep(path: string): void {
    const found = lstatSync(path);
    if (found.isSymbolicLink()) this.#before.set(path, { found, link: readlinkSync(path) });
    else if (found.isDirectory()) {
      this.#before.set(path, { found });
      for (const name of readdirSync(path)) this.#keep(join(path, name));
    } else this.#before.set(path, { found, content: readFileSync(path) });
  }

  [Symbol.dispose](): void {
    makeWritable(this.world.tree.path);
    this.world.tree[Symbol.dispose]();
    this.#state[Symbol.dispose]();
  }
}

interface Kept {
  readonly found: Stats;
  readonly link?: string;
  readonly content?: Uint8Array;
}

function openWorld(tree: Tree, { args, env }: Pick<World, "args" | "env">): World {
  const world: World = {
    tree,
    args,
    env,
    at: (path) => tree.at(path),
    read: (path) => readFileSync(tree.at(path), "utf8"),
    write: (files) => {
      for (const path of Object.keys(files)) rmSync(tree.at(path), { force: true });
      tree.write(files);
    },
    remove: (...paths) => {
      for (const path of paths) rmSync(tree.at(path), { recursive: true });
    },
    edit: (path, from, to) => {
      const text = world.read(path);
      if (!text.includes(from)) throw new Error(`${path} has no ${from}`);
      writeFileSync(tree.at(path), text.replace(from, to));
    },
    append: (path, text) => writeFileSync(tree.at(path), text, { flag: "a" }),
    git: (...words) => output(["git", ...words], { cwd: tree.at("app"), env: { ...world.env, ...IDENTITY } }),
    go: (...words) => output(["go", ...words], { cwd: tree.at("app"), env: world.env }),
    [Symbol.dispose]: () => {},
  };
  return world;
}

const DATE = "2024-01-02T03:04:05Z";
const IDENTITY = Object.fromEntries(
  ["AUTHOR", "COMMITTER"].flatMap((who) => [
    [`GIT_${who}_NAME`, "t"],
    [`GIT_${who}_EMAIL`, "t@example.com"],
    [`GIT_${who}_DATE`, DATE],
  ]),
);

/** The folders of go and of the user's programs on PATH, Go's build cache of the machine, and nothing else of it. */
function plainEnvironment(tree: Tree): Record<string, string> {
  const go = Bun.which("go");
  const cache = Bun.spawnSync(["go", "env", "GOCACHE"]).stdout.toString().trim();
  if (go === null) throw new Error("there is no go on PATH");
  return {
    PATH: [tree.at("bin"), dirname(go), "/usr/bin", "/bin"].join(":"),
    HOME: tree.at("home"),
    GOCACHE: cache,
    GOMODCACHE: tree.at("modules"),
    GOPROXY: `file://${tree.at("proxy")}`,
    GOSUMDB: "off",
    GOTOOLCHAIN: "local",
    GOGC: "off",
    GIT_CONFIG_SYSTEM: tree.at("etc/gitconfig"),
    KO_DOCKER_REPO: "example.com/team",
  };
}

function removeOthers(dir: string, before: ReadonlyMap<string, Kept>): void {
  for (const name of readdirSync(dir)) {
    const path = join(dir, name);
    const is = lstatSync(path);
    const was = before.get(path)?.found;
    const isSameKind = was !== undefined && (was.mode & 0o170000) === (is.mode & 0o170000);
    if (isSameKind && is.isDirectory()) removeOthers(path, before);
    else if (!isSameKind) {
      if (is.isDirectory()) makeWritable(path);
      chmodWritable(dir);
      rmSync(path, { recursive: true });
    }
  }
}

function putBack(path: string, { content, found, link }: Kept): void {
  const is = lstatSync(path, { throwIfNoEntry: false });
  if (link !== undefined) {
    if (is !== undefined && readlinkSync(path) === link) return;
    rmSync(path, { force: true });
    symlinkSync(link, path);
    lutimesSync(path, found.atime, found.mtime);
    return;
  }
  if (content === undefined) {
    if (is === undefined) mkdirSync(path);
    if (is?.mode !== found.mode) chmodSync(path, found.mode);
    return;
  }
  const isSame = is?.ino === found.ino && is.ctimeMs === found.ctimeMs && is.size === found.size;
  if (isSame) return;
  if (is === undefined || !readFileSync(path).equals(content)) {
    rmSync(path, { force: true });
    chmodWritable(dirname(path));
    writeFileSync(path, content);
  }
  chmodSync(path, found.mode);
  utimesSync(path, found.atime, found.mtime);
}

/** The module cache has read-only folders. */
function chmodWritable(dir: string): void {
  const { mode } = lstatSync(dir);
  if ((mode & 0o200) === 0) chmodSync(dir, mode | 0o200);
}

function makeWritable(dir: string): void {
  if (!existsSync(dir)) return;
  chmodWritable(dir);
  for (const entry of readdirSync(dir, { withFileTypes: true })) {
    if (entry.isDirectory()) makeWritable(join(dir, entry.name));
  }
}

/** A module of a proxy that is a folder (https://go.dev/ref/mod#goproxy-protocol): the files of one version. */
export function proxyModule(path: string, version: string, files: Readonly<Record<string, string>>): Files {
  const at = `proxy/${path}/@v`;
  const entries = Object.entries(files).map(([name, text]) => [`${path}@${version}/${name}`, text] as const);
  return {
    [`${at}/list`]: `${version}\n`,
    [`${at}/${version}.info`]: JSON.stringify({ Version: version, Time: DATE }),
    [`${at}/${version}.mod`]: files["go.mod"] ?? `module ${path}\n`,
    [`${at}/${version}.zip`]: zip(entries),
  };
}

/** A zip archive without compression (https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT). */
function zip(entries: readonly (readonly [name: string, text: string])[]): Uint8Array {
  const parts: Buffer[] = [];
  const directory: Buffer[] = [];
  let at = 0;
  for (const [name, text] of entries) {
    const content = Buffer.from(text);
    const common = Buffer.alloc(26);
    common.writeUInt16LE(20, 0);
    common.writeUInt32LE(0x21_0000, 6);
    common.writeUInt32LE(Bun.hash.crc32(content), 10);
    common.writeUInt32LE(content.length, 14);
    common.writeUInt32LE(content.length, 18);
    common.writeUInt16LE(Buffer.byteLength(name), 22);
    const local = Buffer.concat([Buffer.from("PK\x03\x04"), common, Buffer.from(name), content]);
    const tail = Buffer.alloc(14);
    tail.writeUInt32LE(at, 10);
    directory.push(Buffer.concat([Buffer.from("PK\x01\x02\x14\x00"), common, tail, Buffer.from(name)]));
    parts.push(local);
    at += local.length;
  }
  const index = Buffer.concat(directory);
  const end = Buffer.alloc(18);
  end.writeUInt16LE(entries.length, 4);
  end.writeUInt16LE(entries.length, 6);
  end.writeUInt32LE(index.length, 8);
  end.writeUInt32LE(at, 12);
  return Buffer.concat([...parts, index, Buffer.from("PK\x05\x06"), end]);
}
