/**
 * Any changes in any order, and after each the image of a build with the cache is the image of a build without.
 *
 * `KO_RANDOM_SEED` repeats a run that failed, `KO_RANDOM_STEPS` makes it longer. In CI there are more steps.
 */
import { afterEach, expect, test } from "bun:test";
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { goMod, mainGo } from "./helpers/go.ts";
import { type Moment, openScene, type Outcome, remove, type Scene, SETTLED_MS } from "./helpers/world-bench.ts";
import type { Files } from "./helpers/world-folders.ts";

const STEPS = Number(process.env["KO_RANDOM_STEPS"] || (process.env["CI"] ? 100 : 50));
const SEED = Number(process.env["KO_RANDOM_SEED"] || Date.now() % 1_000_000);

/** Numbers that look random, and are the same for the same seed: mulberry32. */
class Dice {
  #state: number;

  constructor(seed: number) {
    this.#state = seed;
  }

  /** From 0 to below `size`. */
  roll(size: number): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let t = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * size);
  }

  pick<T>(items: readonly T[]): T {
    const item = items[this.roll(items.length)];
    if (item === undefined) throw new RangeError("nothing to pick from");
    return item;
  }

  /** True once in `size` times. */
  once(size: number): boolean {
    return this.roll(size) === 0;
  }
}

const source = (name: string, text: number | string): string => `package ${name}\n\nvar Text = "${name} ${text}"\n`;
const extra = (text: number | string): string => `package lib\n\nfunc init() { Text = "extra ${text}" }\n`;

/** Two programs that share a package; one has kodata, a linked source and a replaced module, one embeds files. */
const TREE: Files = {
  "app/go.mod": goMod("example.com/app", {
    more: "\nrequire example.com/dep v0.0.0\n\nreplace example.com/dep => ../dep\n",
  }),
  "app/.gitignore": "ignored\n",
  "app/cmd/one/main.go": mainGo("main 1", ["example.com/app/lib", "example.com/app/linked", "example.com/dep"]),
  "app/cmd/one/kodata/a.txt": "a",
  "app/cmd/one/kodata/link": { link: "../../../data/0" },
  "app/cmd/two/main.go":
    'package main\n\nimport (\n\t"embed"\n\n\t"example.com/app/lib"\n)\n\n//go:embed static all:more*\nvar files embed.FS\n\nfunc main() { println(lib.Text, &files) }\n',
  "app/cmd/two/static/0.txt": "0",
  "app/cmd/two/static/deep/1.txt": "1",
  "app/cmd/two/static/empty": null,
  "app/cmd/two/more/2.txt": "2",
  "app/lib/lib.go": source("lib", 0),
  "app/lib/never.go": `//go:build never\n\n${extra("never")}`,
  "app/lib/special.go": `//go:build special\n\n${extra("special")}`,
  "app/lib/lib_arm64.go": extra("arm64"),
  "app/linked/linked.go": { link: "../../shared/0.go" },
  "app/data/0": "data 0",
  "app/data/1": "data 1",
  "shared/0.go": source("linked", 0),
  "shared/1.go": source("linked", 1),
  "dep/go.mod": goMod("example.com/dep"),
  "dep/dep.go": source("dep", 0),
  "dep/late/late.go": source("late", 0),
  "app/late/late.go": source("late", 0),
  "dep2/go.mod": goMod("example.com/dep"),
  "dep2/dep.go": source("dep", "two"),
};

const SOURCES = [
  "app/lib/lib.go",
  "app/lib/never.go",
  "app/lib/lib_arm64.go",
  "app/cmd/one/main.go",
  "app/cmd/two/main.go",
  "dep/dep.go",
  "dep/late/late.go",
  "app/late/late.go",
  "shared/0.go",
  "shared/1.go",
];
const DATA = [
  "app/cmd/one/kodata/a.txt",
  "app/data/0",
  "app/data/1",
  "app/cmd/two/static/0.txt",
  "app/cmd/two/static/deep/1.txt",
  "app/cmd/two/more/2.txt",
];
/** What is changed, in words. */
type Change = (play: Play) => unknown;

interface Play {
  readonly scene: Scene;
  readonly dice: Dice;
  /** Flags and arguments of the next runs. */
  flags: Set<string>;
  programs: readonly string[];
  /** Entries of `builds`, by program. */
  readonly builds: Map<string, string>;
  /** The `default…` keys of .ko.yaml. */
  defaults: string;
  /** More for the next run only. */
  readonly once: Record<string, string>;
  /** How many run at once with the cache. */
  runs: number;
  /** What a build without the cache makes, if that is known. */
  right: Outcome | undefined;
}

const at = (play: Play, path: string): string => play.scene.tree.at(path);

const CHANGES: Readonly<Record<string, Change>> = {
  "edit a source": (play) => {
    const path = at(play, play.dice.pick(SOURCES));
    edit(path, readFileSync(path, "utf8"), play.dice.roll(3));
  },
  "edit a source secretly": (play) => {
    const path = at(play, play.dice.pick(SOURCES));
    const { atime, mtime } = statSync(path);
    edit(path, readFileSync(path, "utf8"), play.dice.roll(3));
    utimesSync(path, atime, mtime);
  },
  "replace a source": (play) => {
    const path = at(play, play.dice.pick(SOURCES));
    edit(`${path}.new`, readFileSync(path, "utf8"), play.dice.roll(3));
    renameSync(`${path}.new`, path);
  },
  "touch a file": (play) =>
    utimesSync(at(play, play.dice.pick([...SOURCES, ...DATA, "app/go.mod"])), new Date(), new Date()),
  "change a mode": (play) =>
    chmodSync(at(play, play.dice.pick([...SOURCES, ...DATA])), play.dice.pick([0o600, 0o644, 0o755])),
  "edit a data file": (play) => writeFileSync(at(play, play.dice.pick(DATA)), `data ${play.dice.roll(3)}`),
  "add or remove a data file": (play) => {
    const folder = play.dice.pick([
      "app/cmd/one/kodata",
      "app/cmd/two/static",
      "app/cmd/two/static/empty",
      "app/cmd/two/more",
      "app/cmd/two/moreover",
    ]);
    mkdirSync(at(play, folder), { recursive: true });
    toggle(at(play, `${folder}/${play.dice.pick(["new.txt", ".hidden"])}`), "new");
  },
  "lead a link of kodata elsewhere": (play) =>
    lead(at(play, "app/cmd/one/kodata/link"), `../../../data/${play.dice.roll(2)}`),
  "lead a linked source elsewhere": (play) =>
    lead(at(play, "app/linked/linked.go"), `../../shared/${play.dice.roll(2)}.go`),
  "add or remove a source": (play) => {
    const name = play.dice.pick(["extra.go", "extra_linux.go", "extra_windows.go", "extra_test.go", "_extra.go"]);
    toggle(at(play, `app/lib/${name}`), extra(play.dice.roll(2)));
  },
  "let an excluded source join or leave": (play) => {
    const path = at(play, "app/lib/never.go");
    const text = readFileSync(path, "utf8");
    writeFileSync(
      path,
      text.includes("build never")
        ? text.replace("build never", "build !never")
        : text.replace("build !never", "build never"),
    );
  },
  "import or drop a package": (play) => {
    const path = at(play, play.dice.pick(["app/lib/lib.go", "app/cmd/one/main.go", "dep/dep.go"]));
    const text = readFileSync(path, "utf8");
    const added = `import _ "example.com/${path.includes("dep") ? "dep" : "app"}/late"\n`;
    writeFileSync(
      path,
      text.includes(added) ? text.replace(added, "") : text.replace(/^(package .*\n+)/, `$1${added}`),
    );
  },
  "put an import into a comment, or take it out": (play) =>
    toggleComment(at(play, "app/cmd/one/main.go"), /import _ .*\n/),
  "put an embedding into a comment, or take it out": (play) =>
    toggleComment(at(play, "app/cmd/two/main.go"), /\/\/go:embed .*\n/),
  "rename a source": (play) => {
    const [a, b] = [at(play, "app/lib/lib.go"), at(play, "app/lib/renamed.go")];
    if (existsSync(a)) renameSync(a, b);
    else renameSync(b, a);
  },
  "break or mend a source": (play) => toggle(at(play, "app/lib/broken.go"), "package lib\n\nvar Broken = nothing\n"),
  "add or remove a program": (play) =>
    toggle(at(play, "app/cmd/four/main.go"), mainGo("main 1", ["example.com/app/lib"])),
  "add or remove a file of no matter": (play) =>
    toggle(at(play, play.dice.pick(["app/notes", "app/ignored", "app/lib/README.md", "notes"])), "x"),
  "change the go line": (play) => {
    const path = at(play, play.dice.pick(["app/go.mod", "dep/go.mod"]));
    writeFileSync(path, readFileSync(path, "utf8").replace(/^go .*$/m, `go ${play.dice.pick(["1.21", "1.20"])}`));
  },
  "change a replacement": (play) => {
    const path = at(play, "app/go.mod");
    writeFileSync(path, readFileSync(path, "utf8").replace(/=> \S+/, `=> ${play.dice.pick(["../dep", "../dep2"])}`));
  },
  "add or remove a workspace": (play) =>
    toggle(
      at(play, "go.work"),
      `go 1.21\n\nuse ./app\n\nreplace example.com/dep => ./${play.dice.pick(["dep", "dep2"])}\n`,
    ),
  "add or remove a profile": (play) => toggle(at(play, "app/cmd/one/default.pgo"), ""),
  "swap two folders": (play) => {
    const [a, b, c] = [at(play, "dep"), at(play, "dep2"), at(play, "dep3")];
    renameSync(a, c);
    renameSync(b, a);
    renameSync(c, b);
  },

  commit: async ({ scene }) => {
    await scene.git("add", "-A");
    await scene.git("commit", "-q", "--allow-empty", "-m", "more");
  },
  "go back to the commit": ({ scene }) => scene.git("checkout", "-q", "-f", "HEAD", "--", "."),
  "switch the branch": async ({ dice, scene }) => {
    await scene.git("stash", "-q", "-u");
    await scene.git("checkout", "-q", "-f", "-B", dice.pick(["one", "two"]), dice.pick(["main", "HEAD", "one"]));
  },
  "add or remove a tag": async ({ dice, scene }) => {
    const name = `v1.${dice.roll(3)}.0`;
    await scene.git("tag", ...((await scene.git("tag", "-l", name)) === "" ? [name] : ["-d", name]));
    // Go would go on with the version that it found first.
    rmSync(scene.work.at("modules/cache/download"), { recursive: true, force: true });
  },
  "pack refs": ({ scene }) => scene.git("pack-refs", "--all"),

  "set a variable": ({ dice, scene: { env } }) => {
    const [name, value] = dice.pick([
      ["CGO_ENABLED", "1"],
      ["GOAMD64", "v2"],
      ["GOFLAGS", "-tags=special"],
      ["GOFLAGS", "-buildvcs=false"],
      ["GODEBUG", "x=1"],
      ["LANG", "C"],
      ["SOURCE_DATE_EPOCH", "1000"],
      ["MODE", "1"],
      ["MODE", "2"],
      ["KO_DEFAULTFLAGS", "-tags=special"],
      ["KO_DEFAULTLDFLAGS", "-s -X example.com/app/lib.Text={{.Git.ShortCommit}}"],
    ] as const);
    if (env[name] === value) delete env[name];
    else env[name] = value;
  },
  "change an entry of builds": (play) => {
    const name = play.dice.pick(["one", "two", "four"]);
    if (!play.builds.delete(name) || play.dice.once(2)) play.builds.set(name, randomEntry(name, play.dice));
    configure(play);
  },
  "change the default words": (play) => {
    play.defaults = play.dice.pick([
      "",
      "defaultFlags: [-tags=special]\n",
      "image: {env: {A: '{{.Git.TreeState}}'}, stopSignal: SIGINT, volumes: [/d]}\n",
      "defaultEnv: [GOAMD64=v3]\ndefaultLdflags: -s\n",
    ]);
    configure(play);
  },
  "write a setting of Go": ({ dice, scene: { work } }) =>
    writeFileSync(work.at("goenv"), dice.pick(["", "GOFLAGS=-tags=special\n", "GOAMD64=v3\n"])),
  "set a flag": (play) => {
    const flag = play.dice.pick([
      "--disable-optimizations",
      "--platform=linux/arm64",
      "--platform=linux/amd64,linux/arm64",
      "--compression=none",
      "--compression=gzip:3",
      "--image-env=A={{.Git.Branch}}",
      "--image-cmd=b",
    ]);
    if (!play.flags.delete(flag)) {
      const [name] = flag.split("=");
      play.flags = new Set([...play.flags].filter((each) => !each.startsWith(`${name}=`)).concat(flag));
    }
  },
  "ask for other programs": (play) => {
    play.programs = play.dice.pick([
      ["./cmd/one"],
      ["./cmd/two"],
      ["./cmd/two", "./cmd/one"],
      ["example.com/app/cmd/one"],
      ["./..."],
    ]);
  },
  "replace the go command": ({ scene: { work } }) => {
    cpSync(work.at("bin/go"), work.at("bin/new"));
    renameSync(work.at("bin/new"), work.at("bin/go"));
  },

  "edit a source while go runs": (play) => {
    const moment = play.dice.pick<Moment>(["before-list", "after-list", "before-build", "after-build"]);
    const path = play.dice.pick(SOURCES);
    const text = readFileSync(at(play, path), "utf8").replace(/\d+"/, `${play.dice.roll(3)}"`);
    play.scene.work.write({ edit: text });
    play.scene.at(moment, `cp '${play.scene.work.at("edit")}' ${path}`);
  },
};

/** What cannot change the right image. */
const CACHE_CHANGES: Readonly<Record<string, Change>> = {
  "damage an entry of the cache": (play) => {
    const entries = entriesOf(play.scene.cache);
    if (entries.length > 0) damage(play.dice.pick(entries), play.dice);
  },
  "damage half of the cache": (play) => {
    for (const path of entriesOf(play.scene.cache)) if (play.dice.once(2)) damage(path, play.dice);
  },
  "remove a part of the cache": (play) =>
    rmSync(join(play.scene.cache, play.dice.pick(["", "v1", "v1/records", "v1/content", "v1/work"])), {
      recursive: true,
      force: true,
    }),
  "remove the cache while go runs": (play) =>
    play.scene.at(
      play.dice.pick<Moment>(["before-list", "after-list", "before-build", "after-build"]),
      'rm -rf "$KOCACHE"',
    ),
  "put away the cache": ({ scene: { cache, work } }) => {
    if (!existsSync(cache)) return;
    rmSync(work.at("old"), { recursive: true, force: true });
    cpSync(cache, work.at("old"), { recursive: true, preserveTimestamps: true });
  },
  "take out the cache that was put away": ({ scene: { cache, work } }) => {
    if (!existsSync(work.at("old"))) return;
    rmSync(cache, { recursive: true, force: true });
    cpSync(work.at("old"), cache, { recursive: true, preserveTimestamps: true });
  },
  "have little room in the cache": ({ dice, once }) => void (once["KO_CACHE_MAX"] = dice.pick(["0", "1kB", "3MB"])),
  "run several at once": (play) => void (play.runs = 2 + play.dice.roll(2)),
  nothing: () => {},
};

/** An entry of builds with anything that a key can hold. */
function randomEntry(name: string, dice: Dice): string {
  const place = dice.pick([
    `main: ./cmd/${name}`,
    `dir: cmd/${name}`,
    `dir: cmd\n  main: ${name}`,
    `main: example.com/app/cmd/${name}`,
  ]);
  const flags = dice.pick([
    "",
    "flags: [-tags, special]",
    "flags: -tags=never -v",
    "flags: [-buildvcs=false]",
    "flags: ['-tags={{ or (index .Env `MODE`) `none` }}']",
  ]);
  const text = dice.pick([
    "fixed",
    "{{ index .Env `MODE` }}",
    "{{.Git.Tag}}",
    "{{.Git.FullCommit}}",
    "{{.Git.TreeState}}-{{.Git.Branch}}",
    "{{.GoEnv.GOARCH}}-{{.Env.GOARCH}}",
    "{{ index .Env `SOURCE_DATE_EPOCH` }}",
  ]);
  const ldflags = dice.pick([
    "",
    "ldflags: [-s, -w]",
    "ldflags: ''",
    `ldflags: '-X "example.com/app/lib.Text=${text}"'`,
  ]);
  const env = dice.pick(["", "env: [GOAMD64=v3]", "env: [CGO_ENABLED=0, MODE=3]", "env: [GOFLAGS=-tags=special]"]);
  const image = dice.pick([
    "",
    "image: {env: {A: b}, labels: [a=b]}",
    "image: {env: ['A={{ index .Env `MODE` }}'], cmd: [a], workdir: /x, ports: 80}",
    "image: {annotations: {a: '{{.Git.FullCommit}}'}, entrypointArgs: ['{{.Env.GOARCH}}'], user: 7}",
  ]);
  const binary = dice.pick(["", "", "binary: /manager", `binary: /usr/local/bin/${name}`]);
  const capabilities = dice.pick(["", "linux_capabilities: [net_raw]", "linux_capabilities: net_raw=ip"]);
  const lines = [`id: id${dice.roll(2)}`, place, flags, ldflags, env, capabilities, binary, image].filter(
    (line) => line !== "",
  );
  return `- ${lines.join("\n  ")}\n`;
}

function configure({ builds, defaults, scene }: Play): void {
  const entries = builds.size === 0 ? "" : `builds:\n${[...builds.values()].join("")}`;
  scene.work.write({ "config/.ko.yaml": `defaultBaseImage: ko.builtin/static\n${defaults}${entries}` });
}

function edit(path: string, text: string, number: number): void {
  // Where there is no text to edit: a source that takes part nowhere.
  writeFileSync(
    path,
    /"[a-z]* \w+"/.test(text) ? text.replace(/ \w+"/, ` ${number}"`) : `${text.trimEnd()}\n// ${number}\n`,
  );
}

/** Puts the first line of a kind into a comment, or takes it out of that. */
function toggleComment(path: string, line: RegExp): void {
  const text = readFileSync(path, "utf8");
  const isCommented = text.includes("/*\n");
  writeFileSync(path, isCommented ? text.replace("/*\n", "").replace("*/\n", "") : text.replace(line, "/*\n$&*/\n"));
}

function toggle(path: string, text: string): void {
  if (existsSync(path)) return unlinkSync(path);
  mkdirSync(join(path, ".."), { recursive: true });
  writeFileSync(path, text);
}

function lead(path: string, target: string): void {
  unlinkSync(path);
  symlinkSync(target, path);
}

function entriesOf(cache: string): readonly string[] {
  return ["v1/records", "v1/content"].flatMap((folder) => {
    const path = join(cache, folder);
    return existsSync(path) ? readdirSync(path).map((name) => join(path, name)) : [];
  });
}

function damage(path: string, dice: Dice): void {
  const { atime, mtime, size } = statSync(path);
  switch (dice.roll(6)) {
    case 0:
      return rmSync(path, { recursive: true });
    case 1:
      return truncateSync(path, dice.roll(size + 1));
    case 2:
      return writeFileSync(path, "x", { flag: "a" });
    case 3:
      rmSync(path, { recursive: true });
      mkdirSync(path);
      return;
    default: {
      const bytes = readFileSync(path);
      const place = dice.once(3) ? dice.roll(Math.min(64, size)) : dice.roll(size);
      bytes[place] = (bytes[place] ?? 0) ^ (1 << dice.roll(8));
      writeFileSync(path, bytes);
      // As a disk does that forgets.
      if (dice.once(2)) utimesSync(path, atime, mtime);
    }
  }
}

let scene: Scene | undefined;

afterEach(() => {
  scene?.[Symbol.dispose]();
  scene = undefined;
});

test(
  `${STEPS} random steps, seed ${SEED}`,
  async () => {
    scene = await openScene(TREE, { git: true });
    scene.work.write({ goenv: "" });
    scene.env["GOENV"] = scene.work.at("goenv");
    const dice = new Dice(SEED);
    const play: Play = {
      scene,
      dice,
      flags: new Set(),
      programs: ["./cmd/one"],
      builds: new Map(),
      defaults: "",
      once: {},
      runs: 1,
      right: undefined,
    };
    configure(play);
    const history: string[] = [];
    const counts = { proved: 0, built: 0, failed: 0 };
    for (let step = 0; step < STEPS; step++) {
      const names = Array.from({ length: dice.once(4) ? 2 : 1 }, () =>
        dice.pick(Object.keys(dice.roll(5) < 2 ? CHANGES : CACHE_CHANGES)),
      );
      if (names.some((name) => name in CHANGES)) play.right = undefined;
      history.push(`${step}: ${names.join(", ")}`);
      try {
        for (const name of names) await tryChange(name, play);
        if (dice.once(4)) await Bun.sleep(SETTLED_MS);
        const outcome = await compare(play, step);
        counts[outcome]++;
        if (outcome === "failed" && !dice.once(3)) {
          history.push("    write everything anew");
          await writeAnew(scene);
          play.builds.clear();
          play.defaults = "";
          configure(play);
          play.right = undefined;
        }
      } catch (error) {
        throw new Error(`seed ${SEED}, step ${step}\n${history.slice(-15).join("\n")}`, { cause: error });
      }
      play.runs = 1;
      for (const name of Object.keys(play.once)) delete play.once[name];
    }
    console.log(`seed ${SEED}: ${JSON.stringify(counts)}`);
    // In a short run no step may have failed.
    if (STEPS >= 300) for (const count of Object.values(counts)) expect(count).toBeGreaterThan(0);
  },
  STEPS * 20_000,
);

/** Mends whatever makes builds fail; the repository stays. */
async function writeAnew({ tree }: Scene): Promise<void> {
  for (const name of readdirSync(tree.path)) if (name !== "app") remove(tree, name);
  for (const name of readdirSync(tree.at("app"))) if (name !== ".git") remove(tree, `app/${name}`);
  tree.write(TREE);
}

/** What needs a file that an earlier step has taken away does nothing. */
async function tryChange(name: string, play: Play): Promise<void> {
  try {
    await (CHANGES[name] ?? CACHE_CHANGES[name])?.(play);
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    const isMissing = "code" in error && ["ENOENT", "EISDIR", "ENOTDIR"].includes(String(error.code));
    if (!isMissing && !error.message.startsWith("git ")) throw error;
  }
}

async function compare(play: Play, step: number): Promise<keyof { proved: 0; built: 0; failed: 0 }> {
  const { dice, flags, once, programs, runs, scene: here } = play;
  // What goes into a layout is read, what is only printed is not.
  const isWritten = dice.once(3);
  const run = (number: number, env: Readonly<Record<string, string>>): Promise<Outcome> => {
    const layout = isWritten ? ["--oci-layout-path", here.work.at(`layout-${step}-${number}`)] : [];
    return here.run({ args: ["build", "-q", "--push=false", "-B", ...layout, ...flags, ...programs], env });
  };
  const isHooked = readdirSync(here.work.at("at")).some((name) => !name.endsWith(".now"));
  if (isHooked) {
    // What a run makes of what is edited meanwhile is anybody's guess; the next one knows.
    await run(9, once);
    rmSync(here.work.at("at"), { recursive: true });
    mkdirSync(here.work.at("at"));
  }
  const [right, ...ours] = await Promise.all([
    play.right ?? run(0, { KOCACHE: "off" }),
    ...Array.from({ length: runs }, (_, i) => run(i + 1, once)),
  ]);
  play.right = right;
  // Without this, all steps after a signal would pass: no build makes anything then.
  if (right.stderr.includes("interrupted by SIG")) throw new Error(right.stderr);
  for (const { code, images, stderr } of ours) {
    const digests = (text: string): string => (text.match(/sha256:[0-9a-f]{64}/g) ?? []).join("\n");
    if (code === right.code && digests(images) === digests(right.images)) continue;
    throw new Error(
      `with the cache: ${code}\n${images}${stderr}without: ${right.code}\n${right.images}${right.stderr}`,
    );
  }
  for (const name of readdirSync(here.work.path))
    if (name.startsWith("layout-")) rmSync(here.work.at(name), { recursive: true });
  if (right.code !== 0 && process.env["KO_RANDOM_SEED"]) console.log(right.stderr.split("\n", 2).join(" | "));
  if (right.code !== 0) return "failed";
  return ours.every(({ go }) => go.length === 0) ? "proved" : "built";
}
