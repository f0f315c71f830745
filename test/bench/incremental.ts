/**
 * Builds again: what a run costs when nothing changed, after an edit, and when ko's caches are empty but Go's is warm. Ours,
 * the original with and without its KOCACHE, and plain `go build` take turns in one run. Prints Markdown for
 * docs/performance.md, and each single run on stderr.
 *
 *     npm run bench -- [ROUNDS]
 *
 * `KO_BENCH_BEFORE=/path/of/another/ko` compares two executables of this ko instead of this and the original: for the
 * question whether a change made the program slower.
 *
 * Needs docker-registry and the original ko, as the tests do, and for the last row root and dockerd. The programs are the
 * nine of Knative Serving's `config/`, and a small server. Each contender has its own copy of the sources (a git repository
 * with one commit, as users have them), its own caches and repositories, and never compiles what another compiled: each edit
 * is one that was never built.
 */
import { mkdir, rm } from "node:fs/promises";
import { join, resolve } from "node:path";
import { findCounterparts, findKnativePrograms, prepareKnative } from "../helpers/counterparts.ts";
import { tryStartDaemon } from "../helpers/daemon.ts";
import { goMod } from "../helpers/go.ts";
import { pushBases } from "../helpers/oracle-bases.ts";
import { startRegistry } from "../helpers/registry.ts";
import { makeFolder, writeTree } from "../helpers/world-folders.ts";
import { cleanEnvironment, commitTree, output } from "../helpers/world-programs.ts";
import { compare, type Contender, formatRows, type Row } from "./measure.ts";

/** Sources with at least one program. */
interface Work {
  /** Lower-case: part of repository names. */
  readonly name: string;
  /** Absolute path of the repository that is copied. */
  readonly tree: string;
  /** The file that is edited, of one program. */
  readonly main: string;
  /** All programs. */
  readonly packages: readonly string[];
}

/** A contender with what is its own. */
interface Side {
  readonly name: string;
  /** The executable, or undefined for plain `go build`. */
  readonly ko: string | undefined;
  /** Arguments of its own. */
  readonly flags: readonly string[];
  /** The copy of the sources. */
  readonly copy: string;
  /** Where `go build` writes to. */
  readonly out: string;
  readonly cache: string | undefined;
  /** Where images go: changed for a row that wants fresh repositories. */
  repository: string;
  /** What it printed last. */
  printed: string;
}

interface RowOptions {
  readonly sides: readonly Side[];
  readonly work: Work;
  readonly rounds: number;
  /** Rounds of a contender, by name, if fewer: for those that need half a minute. */
  readonly limits?: Readonly<Record<string, number>>;
  /** What happens before each run. */
  readonly before: "nothing" | "edit" | "empty caches";
  /** What `go build` builds. */
  readonly packages: readonly string[];
  /** Arguments of ko. */
  readonly args: readonly string[];
  /** Variables on top of the usual. */
  readonly env?: Readonly<Record<string, string>>;
}

const OURS = resolve(import.meta.dir, "../../ko");
/** The large program, alone. */
const CONTROLLER = "knative.dev/serving/cmd/controller";
const SMALL = 'package main\n\nimport "net/http"\n\nfunc main() { _ = http.ListenAndServe(":8080", nil) }\n';
/** The highest ratios to `go build` that ours may have. */
const GOALS = { nothing: 0.2, edit: 1.1, "empty caches": 1.15 } as const;

const rounds = Number(process.argv[2] ?? 3);
const earlier = process.env["KO_BENCH_BEFORE"];
/** For what takes a minute per round. */
const fewRounds = earlier === undefined ? Math.min(rounds, 3) : 1;
let edits = 0;

const counterparts = findCounterparts(["ko", "docker-registry"]);
if (counterparts === undefined) throw new Error("docker-registry and the original ko are needed: see .ci/run");
const original = counterparts.ko;
await using registry = await startRegistry();
const base = (await pushBases(registry.host)).oci;
await using folder = await makeFolder();
const at = (...names: readonly string[]): string => join(folder.path, ...names);
await mkdir(at("docker"));
await Bun.write(at("config", ".ko.yaml"), `defaultBaseImage: ${base.reference}\n`);
// Programs are stamped with what git says, whatever this machine's `go env -w` says of it.
const common = { ...cleanEnvironment(folder.path), GOFLAGS: "-buildvcs=auto" };

await benchSmall();
await benchKnative();

async function benchSmall(): Promise<void> {
  using tree = writeTree({ "go.mod": goMod("example.com/small"), "main.go": SMALL });
  await commitTree(tree.path);
  const work: Work = { name: "small", tree: tree.path, main: "main.go", packages: ["example.com/small"] };
  const sides = await makeSides(work);
  const run = { sides, work, rounds, packages: work.packages, args: ["build", ...work.packages] };
  print("A small server (net/http), `build`", [
    await measureRow("caches of ko empty, Go's warm", { ...run, before: "empty caches" }),
    await measureRow("nothing changed", { ...run, before: "nothing" }),
    await measureRow("edited", { ...run, before: "edit" }),
  ]);
}

async function benchKnative(): Promise<void> {
  const tree = await prepareKnative();
  const work: Work = {
    name: "serving",
    tree,
    main: "cmd/controller/main.go",
    packages: await findKnativePrograms(tree),
  };
  const sides = await makeSides(work);
  const limits = { original: 1, "original with KOCACHE": fewRounds };
  const all = { sides, work, rounds, limits, packages: work.packages, args: ["resolve", "-R", "-f", "config"] };
  const nine: readonly Row[] = [
    await measureRow("caches of ko empty, Go's warm", {
      ...all,
      limits: { original: 1, "original with KOCACHE": 1 },
      rounds: fewRounds,
      before: "empty caches",
    }),
    await measureRow("nothing changed", { ...all, before: "nothing" }),
    await measureRow("one file of one program edited", { ...all, before: "edit" }),
  ];
  print(`Knative Serving, ${work.packages.length} programs, \`resolve -R -f config\``, nine);

  const one = {
    sides,
    work,
    rounds,
    limits: { ...limits, original: fewRounds },
    packages: [CONTROLLER],
    before: "edit",
  } as const;
  const large = [await measureRow("edited, `build`", { ...one, args: ["build", CONTROLLER] })];
  await using daemon = await tryStartDaemon("classic");
  if (daemon !== undefined) {
    const local = { ...one, args: ["build", "-L", CONTROLLER], env: { DOCKER_HOST: `unix://${daemon.socket}` } };
    // One untimed round: the daemon gets the base.
    await measureRow("", { ...local, rounds: 1 });
    large.push(await measureRow("edited, `build -L`", local));
  }
  print("One program of them, the controller", large);
}

/** Gives each contender its copy of the sources, all with the same edit, and fills Go's build cache with it. */
async function makeSides(work: Work): Promise<readonly Side[]> {
  const side = async (name: string, own: Partial<Side> & { readonly keeps?: boolean }): Promise<Side> => {
    const id = name.toLowerCase().replaceAll(" ", "-");
    const copy = at(work.name, id, "copy");
    await mkdir(at(work.name, id));
    await output(["cp", "-a", work.tree, copy], { cwd: "/", env: common });
    // Its index is of other files: git would look into all of them, each time, until it may write down what it saw.
    await output(["git", "status"], { cwd: copy, env: common });
    return {
      name,
      ko: own.ko,
      flags: own.flags ?? [],
      copy,
      out: at(work.name, id, "out"),
      cache: own.keeps === true ? at(work.name, id, "cache") : undefined,
      repository: `${registry.host}/${work.name}/${id}`,
      printed: "",
    };
  };
  await mkdir(at(work.name));
  const sides = [
    await side("go build", {}),
    await side("ko", { ko: OURS, flags: ["--sbom=none"], keeps: true }),
    ...(earlier === undefined
      ? [
          await side("original with KOCACHE", { ko: original, flags: ["--sbom=none"], keeps: true }),
          await side("original", { ko: original, flags: ["--sbom=none"] }),
        ]
      : [await side("ko before", { ko: earlier, flags: ["--sbom=none"], keeps: true })]),
  ];
  // The first edit of a clean work tree changes what is stamped into all programs; here it is dirty from the start.
  const first = `${Date.now()} first`;
  for (const { copy } of sides) await edit(copy, { work, text: first });
  console.error(`go build of ${work.packages.length} programs: where Go's build cache is empty, minutes`);
  await measureRow("", {
    sides: sides.slice(0, 1),
    work,
    rounds: 1,
    before: "nothing",
    packages: work.packages,
    args: [],
  });
  return sides;
}

/** Changes a string of the program. */
async function edit(copy: string, { work, text }: { readonly work: Work; readonly text: string }): Promise<void> {
  const source = await Bun.file(join(work.tree, work.main)).text();
  await Bun.write(join(copy, work.main), `${source}\nfunc init() { println(${JSON.stringify(`edit ${text}`)}) }\n`);
}

async function measureRow(title: string, options: RowOptions): Promise<Row> {
  const { sides, before } = options;
  if (title !== "") console.error(`${options.work.name}: ${title}`);
  const measured = await compare(
    sides.map((side) => contend(side, options)),
    options.rounds,
  );
  return { title, goal: GOALS[before], measured };
}

function contend(side: Side, { work, before, limits, packages, args, env }: RowOptions): Contender {
  const { name, ko, copy, out, cache } = side;
  const [command = "", ...rest] = args;
  return {
    name,
    rounds: limits?.[name] ?? Infinity,
    prepare: async () => {
      if (before === "edit") await edit(copy, { work, text: `${Date.now()} ${edits++}` });
      if (before === "empty caches") {
        for (const path of [out, cache]) if (path !== undefined) await rm(path, { recursive: true, force: true });
        side.repository += "x";
      }
      await mkdir(out, { recursive: true });
    },
    argv: () =>
      ko === undefined
        ? ["go", "build", "-trimpath", "-o", `${out}/`, ...packages]
        : [ko, command, ...side.flags, ...rest],
    cwd: copy,
    env: () =>
      ko === undefined
        ? { ...common, CGO_ENABLED: "0" }
        : { ...common, ...env, KO_DOCKER_REPO: side.repository, ...(cache === undefined ? {} : { KOCACHE: cache }) },
    check: (printed) => {
      if (ko === undefined) return;
      const isSame = printed === side.printed;
      side.printed = printed;
      if (isSame !== (before === "nothing"))
        throw new Error(`${name} printed ${isSame ? "the same" : "something else"}`);
    },
  };
}

function print(title: string, rows: readonly Row[]): void {
  console.log(formatRows(title, { rows, unit: "go build", ours: "ko" }));
}
