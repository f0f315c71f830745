/**
 * Runs one build with the original ko and with ours, and compares everything that a user of either could see. The tables in
 * `test/parity/` hold the cases.
 *
 * Both get the same tree, the same environment and the same arguments, and push to one real registry under two prefixes;
 * repository names are not part of an image, so equal means equal. Results of the original are kept in the cache folder of the
 * tests, because it is deterministic and takes longer than ours; `KO_TEST_LIVE_ORACLE=1` runs it all the same.
 */
import { existsSync, lstatSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { rename } from "node:fs/promises";
import { join } from "node:path";
import { cacheFolder, ORIGINAL } from "./counterparts.ts";
import { HELLO, readGoBuilds, recordingGo } from "./go.ts";
import type { Base, BaseName, Bases } from "./oracle-bases.ts";
import { compareImages, type CompareOptions, compareTars, compareValues } from "./oracle-compare.ts";
import {
  digestOf,
  isObject,
  pull,
  type Pulled,
  type PulledImage,
  pullLayer,
  pullTags,
  type RepositoryName,
  splitReference,
} from "./registry-images.ts";
import { type Files, type Tree, writeTree } from "./world-folders.ts";
import { commitTree, cleanEnvironment, ourCommand, output } from "./world-programs.ts";

/** One way to run a program. */
export interface Invocation {
  /** What follows `ko build`. */
  readonly args: readonly string[];
  /** Working directory, relative to the tree. @default its root */
  readonly cwd?: string;
}

/** What both programs are given. */
export interface Request extends Invocation {
  /** A name for the repositories: lower-case letters, digits, dashes. */
  readonly id: string;
  /** Absolute path of the source tree. */
  readonly tree: string;
  readonly env: Readonly<Record<string, string>>;
  /** Text of `.ko.yaml`. */
  readonly config: string;
  /** What the build stands on, for what must be written of it. */
  readonly base: Base;
  /** Where ours is run in another way, or in several: each is compared with the one run of the original. */
  readonly ours?: readonly Invocation[];
  /** What the references of ours must look like, in the order printed (the original prints several in any order). */
  readonly order?: readonly RegExp[];
  /** Compares the files that `--image-refs` writes too. */
  readonly imageRefs?: boolean;
  /** Compares the words and the environment of each `go build` too. */
  readonly goBuilds?: boolean;
  /** A tag of the tree's one commit. */
  readonly tag?: string;
  /** Of all bases that the configuration and the environment may name. @default that of `base` */
  readonly baseDigests?: readonly string[];
  /** Lets crane judge what ours pushed. @default {true} */
  readonly validate?: boolean;
}

export interface OracleOptions {
  /** The registry, `127.0.0.1:PORT`. */
  readonly host: string;
  readonly ko: string;
  readonly crane: string;
}

/** What one program printed and pushed. */
export interface Outcome {
  /** The printed references with the registry, the prefix and digests taken out, in the order printed. */
  readonly references: readonly string[];
  /** What they name, in the same order. */
  readonly pulled: readonly Pulled[];
  /** By repository: tag to what it names, an index into `pulled` or a digest that was not printed. */
  readonly tags: readonly Readonly<Record<string, string>>[];
  /** Lines of the file of `--image-refs`, as `references`. */
  readonly imageRefs: readonly string[];
  /** Each `go build` of a program: its words without `-o`, and its environment. */
  readonly goBuilds: readonly string[];
  /** Where each of `pulled` is, unless the outcome was kept from a run whose registry is gone. */
  readonly repositories?: readonly RepositoryName[];
}

/** One parity case: a source tree, a base, an environment and arguments. */
export interface Case {
  /** In plain words; the test's name. */
  readonly name: string;
  /** The tree. @default {@link HELLO} */
  readonly files?: Files;
  /** Makes the tree a git repository with one commit. @default {false} */
  readonly commit?: boolean;
  /** A tag of that commit. */
  readonly tag?: string;
  /** What `defaultBaseImage` in `.ko.yaml` names, and what the build stands on. @default {"oci"} */
  readonly base?: BaseName;
  /** The whole `.ko.yaml`, where it is more than the default base. */
  readonly config?: (bases: Bases) => string;
  /** More of `.ko.yaml`, after the default base. */
  readonly builds?: string;
  readonly env?: Readonly<Record<string, string>> | ((bases: Bases) => Readonly<Record<string, string>>);
  /** What follows `ko build`. @default {["."]} */
  readonly args?: readonly string[];
  /** Working directory below the tree. @default its root */
  readonly cwd?: string;
  /** Other ways to run ours that must come to the same. */
  readonly ours?: readonly Invocation[];
  /** The repositories that ours prints, in order, where the order is the point. */
  readonly order?: readonly RegExp[];
  readonly imageRefs?: boolean;
  /** Compares each `go build` too. @default false */
  readonly goBuilds?: boolean;
  /** False where crane refuses what the original pushes too. @default {true} */
  readonly validate?: boolean;
}

export interface KeepOptions {
  /** Runs the original, whatever is kept of it. @default $KO_TEST_LIVE_ORACLE */
  readonly isLive?: boolean | undefined;
  /** The original's executable. */
  readonly ko: string;
  /** The registry, `127.0.0.1:PORT`: another one each time, and no part of what decides. */
  readonly host: string;
  /** All else that decides the result: arguments, configuration, digest of the base, files. */
  readonly inputs: readonly string[];
}

/** A text that the original made. */
export interface Kept {
  readonly text: string;
  /** False if the original ran just now. */
  readonly isOld: boolean;
}

let described: Promise<string> | undefined;

/** Builds a case with both programs. @returns a line for each difference, as {@link findDifferences} */
export async function differencesOf(
  item: Case,
  { bases, id, ...options }: OracleOptions & { readonly bases: Bases; readonly id: string },
): Promise<string[]> {
  using tree = writeTree(item.files ?? HELLO);
  if (item.commit === true) await commitTree(tree.path, item.tag);
  const base = bases[item.base ?? "oci"];
  return await findDifferences(
    {
      id,
      tree: tree.path,
      base,
      baseDigests: Object.values(bases).map(({ digest }) => digest),
      args: item.args ?? ["."],
      cwd: item.cwd ?? "",
      env: (typeof item.env === "function" ? item.env(bases) : item.env) ?? {},
      config: item.config?.(bases) ?? `defaultBaseImage: ${base.reference}\n${item.builds ?? ""}`,
      imageRefs: item.imageRefs ?? false,
      validate: item.validate ?? true,
      ...(item.goBuilds === true ? { goBuilds: true } : {}),
      ...(item.tag === undefined ? {} : { tag: item.tag }),
      ...(item.ours === undefined ? {} : { ours: item.ours }),
      ...(item.order === undefined ? {} : { order: item.order }),
    },
    options,
  );
}

/**
 * Builds with both programs.
 *
 * @returns one line per difference, naming the field; none when the two agree
 * @throws {Error} If either program or `crane validate` fails, with what it wrote.
 */
export async function findDifferences(request: Request, options: OracleOptions): Promise<string[]> {
  const kept = await findDifferencesFrom(request, options);
  // What was kept may be of another world after all: the original itself has the last word.
  return kept.isOld && kept.lines.length > 0
    ? (await findDifferencesFrom(request, { ...options, isLive: true })).lines
    : kept.lines;
}

/**
 * What the original pushed, kept between runs. A kept outcome has no registry behind it: a layer that differs is told by
 * its diffID alone.
 */
export async function keepOutcome(
  run: () => Promise<Outcome>,
  options: KeepOptions,
): Promise<{ readonly outcome: Outcome; readonly isOld: boolean }> {
  let outcome: Outcome | undefined;
  const { text, isOld } = await keepOriginal(async () => {
    outcome = await run();
    const { references, pulled, tags, imageRefs, goBuilds } = outcome;
    return JSON.stringify({ references, pulled, tags, imageRefs, goBuilds });
  }, options);
  if (outcome !== undefined) return { outcome, isOld };
  const parsed: unknown = JSON.parse(text);
  const value: unknown = isObject(parsed) ? { goBuilds: [], ...parsed } : parsed;
  if (!isOutcome(value)) throw new Error("what was kept of the original is not what was written");
  return { outcome: value, isOld };
}

/** Compares what ours did with what the original did. Order of references is ours to keep, the original has none. */
export async function compareOutcomes(
  ours: Outcome,
  original: Outcome,
  { base, withLayers = true }: CompareOutcomesOptions,
): Promise<string[]> {
  const options: CompareOptions = { baseDigest: base.digest, baseLayers: base.layers };
  const lines = compareValues("references", ours.references.toSorted(), original.references.toSorted());
  lines.push(...compareValues("image refs", ours.imageRefs, original.imageRefs));
  lines.push(...compareValues("go build", ours.goBuilds, original.goBuilds));
  for (const [i, reference] of original.references.entries()) {
    const at = ours.references.indexOf(reference);
    const mine = ours.pulled[at];
    const theirs = original.pulled[i];
    if (mine === undefined || theirs === undefined) continue;
    const found = compareImages(mine, theirs, options);
    found.push(...compareValues("tags", ours.tags[at], original.tags[i]));
    const [here, there] = [ours.repositories?.[at], original.repositories?.[i]];
    if (here !== undefined && withLayers) {
      const [a, b] = [
        { pulled: mine, repository: here },
        { pulled: theirs, repository: there },
      ];
      found.push(...(await compareLayers(a, b, base.layers)));
    }
    lines.push(...found.map((line) => `${reference}: ${line}`));
  }
  return lines;
}

/** Lets crane judge everything that a program pushed. @throws {Error} If it finds fault. */
export async function validateAll(crane: string, outcome: Outcome): Promise<void> {
  for (const [i, { host, path }] of (outcome.repositories ?? []).entries()) {
    const reference = `${host}/${path}@${outcome.pulled[i]?.digest ?? ""}`;
    await output([crane, "validate", "--insecure", "--remote", reference], { cwd: "/", env: process.env });
  }
}

/** Runs one program to its end and pulls back what it says it pushed. */
export async function runKo(argv: readonly string[], options: RunKoOptions): Promise<Outcome> {
  const { request, host, prefix, cwd } = options;
  options.work.write({ [`${prefix}/docker`]: null, [`${prefix}/config/.ko.yaml`]: request.config });
  const work = options.work.at(prefix);
  const refsFile = join(work, "refs");
  const env = {
    ...cleanEnvironment(work),
    KO_DOCKER_REPO: `${host}/${prefix}/${request.id}`,
    // Ours keeps a cache unless told otherwise: here it gets one of its own, the original none.
    ...(prefix.startsWith("ours") ? { KOCACHE: join(work, "cache") } : {}),
    ...(request.goBuilds === true ? { KO_GO_PATH: recordingGo(options.work, prefix) } : {}),
    ...request.env,
  };
  const more = request.imageRefs === true ? ["--image-refs", refsFile] : [];
  const stdout = await output([...argv, ...more], { cwd, env });
  const references = stdout.split("\n").filter((line) => line !== "");
  const imageRefs = request.imageRefs === true ? (await Bun.file(refsFile).text()).trimEnd().split("\n") : [];
  const pulled = await Promise.all(references.map(pull));
  const digests = pulled.map(({ digest }) => digest);
  const tags = [];
  for (const [i, reference] of references.entries()) {
    const named = Object.entries(await pullTags(splitReference(reference)));
    // Digests differ between the two programs: say "the one that was printed" instead.
    tags.push(Object.fromEntries(named.map(([tag, digest]) => [tag, digest === digests[i] ? "printed" : digest])));
  }
  const anonymous = (reference: string): string =>
    reference.replace(`${host}/${prefix}/`, "").replace(/@sha256:[0-9a-f]{64}$/, "@DIGEST");
  return {
    references: references.map(anonymous),
    imageRefs: imageRefs.map(anonymous),
    goBuilds: readGoBuilds(options.work, prefix),
    pulled,
    tags,
    repositories: references.map(splitReference),
  };
}

/** Failures of a busy machine, which another run does not have. */
const OF_THE_MACHINE = /connection refused|connection reset|i\/o timeout|deadline exceeded|unexpected EOF|signal: \w+/;

/**
 * A text that the original makes, from the cache folder if it was made before.
 *
 * Sound, because the file's name is a hash of all that decides the text: the original's own executable, the inputs, and
 * everything that `go env` reports. The original run twice on these gives the same text; it keeps no state of its own.
 */
export async function keepOriginal(make: () => Promise<string>, options: KeepOptions): Promise<Kept> {
  const { ko, host, inputs, isLive = Boolean(process.env["KO_TEST_LIVE_ORACLE"]) } = options;
  const key = new Bun.CryptoHasher("sha256");
  key.update(JSON.stringify([await describeOriginal(ko), ...inputs.map((input) => input.replaceAll(host, "HOST"))]));
  const file = join(cacheFolder(), "original", key.digest("hex"));
  if (!isLive && existsSync(file))
    return { text: readFileSync(file, "utf8").replaceAll("HOST:PORT", host), isOld: true };
  const text = await make();
  if (OF_THE_MACHINE.test(text)) return { text, isOld: false };
  const making = `${file}.${crypto.randomUUID()}`;
  await Bun.write(making, text.replaceAll(host, "HOST:PORT"));
  // A file that is there is complete.
  await rename(making, file);
  return { text, isOld: false };
}

/**
 * All that a folder holds as a build sees it: names, modes, links and contents; of the repository in its root only that
 * there is one, as its one commit holds the same.
 */
export function digestTree(root: string): string {
  const hash = new Bun.CryptoHasher("sha256");
  const visit = (path: string): void => {
    for (const name of readdirSync(join(root, path)).sort()) {
      const at = join(path, name);
      const stat = lstatSync(join(root, at));
      hash.update(JSON.stringify([at, stat.mode]));
      if (at === ".git") continue;
      if (stat.isSymbolicLink()) hash.update(JSON.stringify(readlinkSync(join(root, at))));
      else if (stat.isDirectory()) visit(at);
      else hash.update(new Bun.CryptoHasher("sha256").update(readFileSync(join(root, at))).digest());
    }
  };
  visit("");
  return hash.digest("hex");
}

async function findDifferencesFrom(
  request: Request,
  options: OracleOptions & Pick<KeepOptions, "isLive">,
): Promise<{ readonly lines: string[]; readonly isOld: boolean }> {
  const { host, ko, crane, isLive } = options;
  using work = writeTree({});
  const ways = request.ours ?? [request];
  const run = (argv: readonly string[], way: Invocation, prefix: string): Promise<Outcome> =>
    runKo([...argv, ...way.args], { request, host, prefix, work, cwd: join(request.tree, way.cwd ?? "") });
  const { base, baseDigests = [base.digest], ...decisive } = request;
  const inputs = [
    JSON.stringify({ ...decisive, ours: [] }).replaceAll(request.tree, "TREE"),
    digestTree(request.tree),
    ...baseDigests,
  ];
  const [{ outcome: original, isOld }, ...ours] = await Promise.all([
    keepOutcome(() => run([ko, "build", "--sbom=none"], request, "original"), { ko, host, inputs, isLive }),
    ...ways.map((way, i) => run([...ourCommand(), "build", "--sbom=none"], way, `ours${i}`)),
  ]);
  const lines: string[] = [];
  for (const outcome of ours) {
    lines.push(...(await compareOutcomes(outcome, original, { base })));
    const { references } = outcome;
    if (request.order?.some((form, i) => !form.test(references[i] ?? "")) === true) {
      lines.push(`references: ours come as ${references.join(" ")}, wanted ${request.order.join(" ")}`);
    }
    if (request.validate !== false) await validateAll(crane, outcome);
  }
  return { lines, isOld };
}

/** What {@link keepOutcome} wrote. */
function isOutcome(value: unknown): value is Outcome {
  const keys = ["references", "pulled", "tags", "imageRefs", "goBuilds"];
  return isObject(value) && keys.every((key) => Array.isArray(value[key]));
}

interface CompareOutcomesOptions {
  readonly base: Base;
  /** Reads the layers of ours too, which takes long where they are large. @default true */
  readonly withLayers?: boolean;
}

interface RunKoOptions {
  readonly request: Request;
  readonly host: string;
  readonly prefix: string;
  /** For configuration and caches: a folder of it per prefix. */
  readonly work: Tree;
  /** Absolute. */
  readonly cwd: string;
}

/**
 * Checks that each new layer of ours holds what its diffID says, and says where it parts from the original's, if that is
 * in a registry.
 */
async function compareLayers(ours: Located, original: MaybeLocated, baseLayers: number): Promise<string[]> {
  const lines: string[] = [];
  for (const [i, image] of imagesOf(ours.pulled).entries()) {
    const other = imagesOf(original.pulled)[i];
    for (const [at, layer] of image.layers.entries()) {
      if (at < baseLayers) continue;
      const path = `image ${i} layers[${at}]`;
      const tar = await pullLayer(ours.repository, layer.digest);
      lines.push(...compareValues(`${path} diffID as listed`, layer.diffId, digestOf(tar)));
      const theirs = other?.layers[at];
      if (theirs === undefined || theirs.diffId === layer.diffId || original.repository === undefined) continue;
      lines.push(...compareTars(path, tar, await pullLayer(original.repository, theirs.digest)));
    }
  }
  return lines;
}

interface MaybeLocated {
  readonly pulled: Pulled;
  readonly repository: RepositoryName | undefined;
}

interface Located extends MaybeLocated {
  readonly repository: RepositoryName;
}

function imagesOf(pulled: Pulled): readonly PulledImage[] {
  return pulled.kind === "image" ? [pulled] : pulled.children;
}

/** The original and what it finds on this machine. */
function describeOriginal(ko: string): Promise<string> {
  return (described ??= (async () => {
    const { stdout } = Bun.spawnSync(["go", "env", "-json"], { cwd: "/", stderr: "inherit" });
    // Each call of `go env` names another temporary folder there.
    const stable = stdout.toString().replace(/^\t"GOGCCFLAGS":.*$/m, "");
    const hash = new Bun.CryptoHasher("sha256").update(await Bun.file(ko).bytes()).digest("hex");
    return JSON.stringify([ORIGINAL, stable, hash]);
  })());
}
