/**
 * `--watch`, end to end: ko runs as a user runs it, files change as editors change them. Registry and Go are real;
 * kubectl is a script where a test needs a certain behaviour. feature-watch-apply.test.ts uses a real API server.
 */
import { describe, expect, test } from "bun:test";
import { chmodSync, existsSync, readFileSync, renameSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { findCounterparts } from "./helpers/counterparts.ts";
import { goMod, libraryGo, mainGo } from "./helpers/go.ts";
import { registrySuite } from "./helpers/registry-fault-proxy.ts";
import { type Bench, makeBench, SETTLED_MS } from "./helpers/world-bench.ts";
import type { Files } from "./helpers/world-folders.ts";
import { ourCommand, start, survivorsWith, waitUntil } from "./helpers/world-programs.ts";
import { causeOf, outcomeOf, startWatching } from "./helpers/world-watch.ts";

const programs = findCounterparts(["docker-registry"]);

/** Two programs of one package, and one of nothing. */
const APP: Files = {
  "go.mod": goMod("example.com/app"),
  "cmd/web/main.go": mainGo("web", ["example.com/app/pkg/shared"]),
  "cmd/api/main.go": mainGo("api", ["example.com/app/pkg/shared"]),
  "cmd/alone/main.go": mainGo(),
  "pkg/shared/shared.go": libraryGo("shared", "one"),
  "pkg/unused/unused.go": libraryGo("unused", "one"),
  "config/alone.yaml": configMap("alone", "cmd/alone"),
  "config/web.yaml": `${configMap("web", "cmd/web")}---\n${configMap("plain")}`,
};

function configMap(name: string, path?: string): string {
  const image = path === undefined ? "" : `, image: "ko://example.com/app/${path}"`;
  return `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ${name}}\ndata: {a: b${image}}\n`;
}

describe.skipIf(programs === undefined)("--watch", () => {
  const { proxy } = registrySuite();
  let bench: Bench;

  function open(files: Files = APP): Bench {
    return (bench = makeBench(files, { host: proxy.host }));
  }

  /** Digests of images in a text, by the program's name. */
  function digests(text: string): Readonly<Record<string, string>> {
    const found = text.matchAll(/team-[0-9a-f-]+\/(\w+)-[0-9a-f]{32}@sha256:([0-9a-f]{64})/g);
    return Object.fromEntries([...found].map(([, name = "", digest = ""]) => [name, digest]));
  }

  /** What a run of its own says now. */
  async function fresh(args: readonly string[]): Promise<Readonly<Record<string, string>>> {
    const { code, stdout, stderr } = await bench.ours(["resolve", "-q", ...args]);
    if (code !== 0) throw new Error(stderr);
    return digests(stdout);
  }

  describe("ko resolve -W", () => {
    test("a change builds the affected programs and prints their documents; an unused package does nothing", async () => {
      using _bench = open();
      await using watching = startWatching(bench, ["resolve", "-W", "-f", "config"]);
      expect(causeOf(await watching.round())).toBe("start");
      const first = watching.printed();
      expect(Object.keys(digests(first))).toEqual(["alone", "web"]);
      expect(first.match(/^---$/gm)).toHaveLength(3);
      await watching.said(/^watching 3 packages, \d+ files\n/m);

      bench.tree.write({
        "pkg/unused/unused.go": libraryGo("unused", "two"),
        "cmd/web/main_test.go": "package main\n",
      });
      bench.tree.write({ "pkg/shared/shared.go": libraryGo("shared", "two") });
      const block = await watching.round();
      expect(causeOf(block)).toBe("pkg/shared/shared.go");
      expect(block).toMatch(/^ {2}example\.com\/app\/cmd\/web {2}[0-9a-f]{12} -> [0-9a-f]{12}$/m);
      expect(block).not.toContain("cmd/alone");
      expect(outcomeOf(block)).toBe("printed 1 document");
      const second = watching.printed();
      expect(digests(second)).toEqual({ web: expect.any(String) });
      expect(digests(second)["web"]).not.toBe(digests(first)["web"]);
      expect(digests(second)["web"]).toBe((await fresh(["-f", "config"]))["web"] ?? "");
      expect(second).toStartWith("apiVersion: v1\n");
      expect(second).toEndWith("}\n---\n");

      // The same content again, and another mode: a round without output.
      for (const touch of [
        () => bench.tree.write({ "cmd/alone/main.go": mainGo() }),
        () => chmodSync(bench.tree.at("cmd/alone/main.go"), 0o600),
        () => utimesSync(bench.tree.at("cmd/alone/main.go"), new Date(), new Date()),
      ]) {
        touch();
        expect(await watching.round()).toMatch(/cmd\/alone {2}[0-9a-f]{12}, the same as before\n {2}nothing new, /);
      }
      // A changed YAML file is printed whole.
      bench.tree.write({ "config/web.yaml": `# new\n${configMap("web", "cmd/web")}---\n${configMap("plain")}` });
      expect(outcomeOf(await watching.round())).toBe("printed 2 documents");
      expect(watching.printed()).toContain("name: plain");
      expect(await watching.end()).toMatchObject({ code: 130 });
    });

    test("one save by any editor is one round", async () => {
      using _bench = open();
      await using watching = startWatching(bench, ["resolve", "-W", "-f", "config/alone.yaml"]);
      await watching.round();
      await watching.said(/^watching /m);
      const at = (path: string): string => bench.tree.at(path);
      const source = "cmd/alone/main.go";
      const text = (n: number): string => mainGo(`save ${n}`);
      const saves: readonly [string, () => void][] = [
        ["in place", () => writeFileSync(at(source), text(1))],
        [
          "by rename",
          () => {
            writeFileSync(at("cmd/alone/.main.go.tmp"), text(2));
            renameSync(at("cmd/alone/.main.go.tmp"), at(source));
          },
        ],
        [
          "as vim: a test file, a swap file, a backup",
          () => {
            writeFileSync(at("cmd/alone/.main.go.swp"), "swap");
            writeFileSync(at("cmd/alone/4913"), "");
            rmSync(at("cmd/alone/4913"));
            renameSync(at(source), at(`${source}~`));
            writeFileSync(at(source), text(3));
            rmSync(at(`${source}~`));
            rmSync(at("cmd/alone/.main.go.swp"));
          },
        ],
        [
          "truncated, then written piece by piece",
          () => {
            writeFileSync(at(source), "");
            for (const part of text(4).split(/(?<=\n)/)) writeFileSync(at(source), part, { flag: "a" });
          },
        ],
        [
          "by rename again",
          () => {
            writeFileSync(at("main.tmp"), text(5));
            renameSync(at("main.tmp"), at(source));
          },
        ],
      ];
      for (const [, save] of saves) {
        save();
        const block = await watching.round();
        expect([causeOf(block), outcomeOf(block)]).toEqual([source, "printed 1 document"]);
      }
      const rounds = 1 + saves.length;
      expect(watching.running.stderr().match(/^\d\d:\d\d:\d\d /gm)).toHaveLength(rounds);
      expect(digests(watching.running.stdout().slice(-1000))).toEqual(await fresh(["-f", "config/alone.yaml"]));
    });

    test("five hundred files at once are one round", async () => {
      const names = Array.from({ length: 500 }, (_, i) => `pkg/many/f${i}.go`);
      const many = (n: number): Files =>
        Object.fromEntries(names.map((name, i) => [name, `package many\n\nconst N${i} = ${n}\n`]));
      using _bench = open({
        ...APP,
        ...many(1),
        "cmd/alone/main.go": 'package main\n\nimport "example.com/app/pkg/many"\n\nfunc main() { println(many.N7) }\n',
      });
      await using watching = startWatching(bench, ["resolve", "-W", "-f", "config/alone.yaml"]);
      await watching.round();
      await watching.said(/^watching /m);
      bench.tree.write(many(2));
      const block = await watching.round();
      expect(block).toMatch(/pkg\/many\/f\d+\.go and \d+ more\n/);
      bench.tree.write({ "config/alone.yaml": `${configMap("alone", "cmd/alone")}  # end\n` });
      // By then late events have been handled.
      await watching.said(/^\d\d:\d\d:\d\d (?:.*, )?config\/alone\.yaml.*\n(?:.*\n)*? {2}printed/m);
      expect(digests(watching.running.stdout().slice(-300))).toEqual(await fresh(["-f", "config/alone.yaml"]));
    });

    test("kodata, through links, embedded files, go.mod and .ko.yaml: as a run of its own", async () => {
      using _bench = open({
        "go.mod": goMod("example.com/app"),
        ".git/HEAD": "ref: refs/heads/main\n",
        "main.go": 'package main\n\nimport _ "embed"\n\n//go:embed text/*.txt\nvar fs embed.FS\n\nfunc main() {}\n'
          .replace('_ "embed"', '"embed"')
          .replace("func main() {}", "func main() { _ = fs }"),
        "text/a.txt": "a",
        "kodata/a.txt": "a",
        "kodata/link": { link: "../data" },
        "data/deep/b.txt": "b",
        "in.yaml": configMap("app").replace("a: b", "a: ko://example.com/app"),
      });
      await using watching = startWatching(bench, ["resolve", "-W", "-f", "in.yaml"]);
      await watching.round();
      await watching.said(/^watching /m);
      watching.printed();
      const args = ["-f", "in.yaml"];
      let before = "";
      const edits: readonly [string, Files][] = [
        ["kodata/a.txt", { "kodata/a.txt": "aa" }],
        ["kodata/new/c.txt", { "kodata/new/c.txt": "c" }],
        ["data/deep/b.txt", { "data/deep/b.txt": "bb" }],
        ["kodata/new/c.txt", { "kodata/new/c.txt": "cc" }],
        ["text/a.txt", { "text/a.txt": "aa" }],
        ["text/b.txt", { "text/b.txt": "b" }],
        ["go.mod", { "go.mod": goMod("example.com/app").replace("1.21", "1.20") }],
      ];
      for (const [cause, files] of edits) {
        bench.tree.write(files);
        const block = await watching.round();
        expect([cause, outcomeOf(block)]).toEqual([cause, "printed 1 document"]);
        const now = digests(watching.printed());
        expect([cause, now]).toEqual([cause, await fresh(args)]);
        expect(now["app"] ?? "").not.toBe(before);
        before = now["app"] ?? "";
      }
    });

    test(".ko.yaml that appears, changes, breaks and goes", async () => {
      using _bench = open();
      const env = { KO_CONFIG_PATH: "", KO_DEFAULTBASEIMAGE: "" };
      const args = ["-f", "config/alone.yaml"];
      bench.tree.write({ ".ko.yaml": "defaultBaseImage: scratch\n" });
      await using watching = startWatching(bench, ["resolve", "-W", ...args], { env });
      await watching.round();
      await watching.said(/^watching /m);
      watching.printed();
      bench.tree.write({ ".ko.yaml": "defaultBaseImage: ko.builtin/static\n" });
      const block = await watching.round();
      expect([causeOf(block), outcomeOf(block)]).toEqual([".ko.yaml", "printed 1 document"]);
      const builtin = digests(watching.printed());
      bench.tree.write({ ".ko.yaml": "defaultBaseImag: scratch\n" });
      expect(await watching.round()).toContain(
        'Error: Cannot use .ko.yaml:1:1: "defaultBaseImag" is not a setting of ko',
      );
      bench.tree.write({ ".ko.yaml": "defaultBaseImage: scratch\n" });
      expect(outcomeOf(await watching.round())).toBe("printed 1 document");
      expect(digests(watching.printed())).not.toEqual(builtin);
    });

    test("packages that join and leave", async () => {
      using _bench = open();
      await using watching = startWatching(bench, ["resolve", "-W", "-f", "config/alone.yaml"]);
      await watching.round();
      await watching.said(/^watching 1 package, /m);
      const using = (name: string): string => mainGo("uses", [`example.com/app/pkg/${name}`]);
      // A missing package is an error until it appears.
      bench.tree.write({ "cmd/alone/main.go": using("fresh") });
      const broken = await watching.round();
      expect(broken).toContain("cmd/alone/main.go:3:8: ");
      expect(broken).toContain("module example.com/app has no package example.com/app/pkg/fresh");
      bench.tree.write({ "pkg/fresh/fresh.go": libraryGo("fresh", "one") });
      expect(outcomeOf(await watching.said(/^ {2}printed.*\n/m))).toBe("printed 1 document");
      await watching.said(/^watching 2 packages, /m);
      bench.tree.write({ "pkg/fresh/fresh.go": libraryGo("fresh", "two") });
      const block = await watching.round();
      expect([causeOf(block), outcomeOf(block)]).toEqual(["pkg/fresh/fresh.go", "printed 1 document"]);
      bench.tree.write({ "cmd/alone/main.go": mainGo() });
      await watching.round();
      await watching.said(/^watching 1 package, /m);
      bench.tree.write({ "pkg/fresh/fresh.go": libraryGo("fresh", "three") });
      bench.tree.write({ "cmd/alone/main.go": mainGo("end") });
      expect(causeOf(await watching.round())).toBe("cmd/alone/main.go");
      // A folder that goes and comes back.
      rmSync(bench.tree.at("cmd/alone"), { recursive: true });
      expect(outcomeOf(await watching.round())).toBe("failed");
      bench.tree.write({ "cmd/alone/main.go": mainGo("again") });
      await watching.said(/^ {2}printed/m);
      bench.tree.write({ "cmd/alone/main.go": mainGo("once more") });
      await watching.said(/^ {2}printed/m);
      expect(digests(watching.running.stdout().slice(-300))).toEqual(await fresh(["-f", "config/alone.yaml"]));
    });

    test.each<[string, Files, RegExp]>([
      [
        "a compile error",
        { "cmd/alone/main.go": "package main\n\nfunc main() { x() }\n" },
        /^cmd\/alone\/main\.go:3:15: undefined: x$/m,
      ],
      [
        "a syntax error at the top",
        { "cmd/alone/main.go": "pakcage main\n" },
        /^(?:Error: .*)?cmd\/alone\/main\.go:1:1: expected 'package'/m,
      ],
      ["two packages in a folder", { "cmd/alone/other.go": "package other\n" }, /found packages (main|other)/],
      [
        "a missing import",
        { "cmd/alone/main.go": 'package main\n\nimport _ "example.com/nobody/nothing"\n\nfunc main() {}\n' },
        /cmd\/alone\/main\.go:3:8: no required module provides package example\.com\/nobody\/nothing/,
      ],
      ["a broken go.mod", { "go.mod": goMod("example.com/app", { more: "\nrequire (\n" }) }, /go\.mod:\d+/],
      [
        "a broken YAML file",
        { "config/alone.yaml": `a: [1\nb: ko://example.com/app/cmd/alone\n` },
        /^Error: Cannot read "config\/alone\.yaml:2:1" as YAML/m,
      ],
      [
        "a YAML file that is not there",
        { "config/alone.yaml": { link: "nowhere" } },
        /^Error: Cannot read "config\/alone\.yaml": there is no such file/m,
      ],
      [
        "a reference to no program",
        { "config/alone.yaml": configMap("alone", "cmd/alon") },
        /^Error: config\/alone\.yaml:4:22: ko:\/\/example\.com\/app\/cmd\/alon: /m,
      ],
    ])("%s, from the first round on: reported, and repaired", async (_what, broken, message) => {
      const files = { ...APP };
      const mend = (): void => {
        for (const path of Object.keys(broken)) {
          rmSync(bench.tree.at(path), { force: true });
          const good = files[path];
          if (good !== undefined) bench.tree.write({ [path]: good });
        }
      };
      using _bench = open({ ...APP, ...broken });
      await using watching = startWatching(bench, ["resolve", "-W", "-f", "config/alone.yaml"]);
      const first = await watching.round();
      expect(first).toMatch(message);
      expect(outcomeOf(first)).toBe("failed");
      expect(watching.printed()).toBe("");
      mend();
      await watching.said(/^ {2}printed 1 document/m);
      expect(digests(watching.printed())).toEqual({ alone: expect.any(String) });
      // The same once more, after a success.
      for (const path of Object.keys(broken)) rmSync(bench.tree.at(path), { force: true });
      bench.tree.write(broken);
      expect(await watching.said(/^ {2}failed.*\n/m)).toMatch(message);
      mend();
      await watching.said(/^ {2}(?:printed|nothing new)/m);
    });

    test("files of any name, by name and by rename, in folders that appear", async () => {
      using _bench = open({
        ...APP,
        "single.yml": configMap("single", "cmd/alone"),
        "config/sub/x.yml": configMap("x"),
      });
      await using watching = startWatching(bench, ["resolve", "-W", "-R", "-f", "config,single.yml"]);
      await watching.round();
      await watching.said(/^watching /m);
      watching.printed();
      const saveByRename = (path: string, text: string): void => {
        bench.tree.write({ "in.tmp": text });
        renameSync(bench.tree.at("in.tmp"), bench.tree.at(path));
      };
      for (const label of ["first", "second", "third"]) {
        saveByRename("single.yml", `# ${label}\n${configMap("single", "cmd/alone")}`);
        await watching.said(/^ {2}printed 1 document.*\n/m);
        expect(watching.printed()).toStartWith(`# ${label}\n`);
      }
      bench.tree.write({ "config/new/deep/y.json": '{"kind": "ConfigMap"}\n' });
      await watching.said(/^ {2}printed 1 document.*\n/m);
      expect(watching.printed()).toStartWith('{"kind": "ConfigMap"}\n');
      bench.tree.write({
        "config/new/deep/y.json": '{"kind": "Secret"}\n',
        "config/new/deep/.hidden.yaml": "a: [",
        "config/web.yaml~": "a: [",
      });
      await watching.said(/^ {2}printed 1 document.*\n/m);
      expect(watching.printed()).toStartWith('{"kind": "Secret"}\n');
    });

    test("standard input is read once, and kept", async () => {
      using _bench = open();
      const stdin = configMap("alone", "cmd/alone");
      await using watching = startWatching(bench, ["resolve", "-W", "-f", "-"], { stdin });
      await watching.round();
      await watching.said(/^watching /m);
      const first = digests(watching.printed());
      bench.tree.write({ "cmd/alone/main.go": mainGo("other") });
      expect(outcomeOf(await watching.round())).toBe("printed 1 document");
      const second = watching.printed();
      expect(second.replaceAll(/127\S+[0-9a-f]{64}/g, "ko://example.com/app/cmd/alone")).toBe(`${stdin}---\n`);
      expect(digests(second)).not.toEqual(first);
    });

    test("a registry that is away: shown once, and retried", async () => {
      using _bench = open();
      proxy.rules = [{ method: "PUT", path: /\/manifests\//, fault: { kind: "answer", status: 403 } }];
      await using watching = startWatching(bench, ["resolve", "-W", "-f", "config/alone.yaml"]);
      const block = await watching.round();
      expect(block).toContain("403");
      expect(block).toMatch(/^ {2}failed, .*; ko tries again$/m);
      const puts = (): number =>
        proxy.seen.filter(({ method, path }) => method === "PUT" && path.includes("/manifests/")).length;
      const tried = puts();
      await waitUntil(() => puts() > tried, watching.running);
      proxy.rules = [];
      const mended = await watching.round();
      expect(causeOf(mended)).toMatch(/^start, retry \d+$/);
      expect(outcomeOf(mended)).toBe("printed 1 document");
      expect(watching.running.stderr().match(/403/g)).toHaveLength(block.match(/403/g)?.length ?? 0);
    });

    test("without the cache", async () => {
      using _bench = open();
      const env = { KOCACHE: "off" };
      await using watching = startWatching(bench, ["resolve", "-W", "-f", "config"], { env });
      await watching.round();
      await watching.said(/^watching 3 packages, /m);
      watching.printed();
      bench.tree.write({ "pkg/shared/shared.go": libraryGo("shared", "two") });
      const block = await watching.round();
      expect([causeOf(block), outcomeOf(block)]).toEqual(["pkg/shared/shared.go", "printed 1 document"]);
      expect(digests(watching.printed())).toEqual({ web: expect.any(String) });
    });

    test("an edit below the imports starts go build and nothing else, also after a start from the cache", async () => {
      using _bench = open();
      await Bun.sleep(SETTLED_MS);
      await bench.ours(["resolve", "-q", "-f", "config"]);
      await using watching = startWatching(bench, ["resolve", "-W", "-f", "config"]);
      await watching.round();
      await watching.said(/^watching 3 packages, /m);
      const before = bench.goCalls().length;
      for (const text of ["two", "three", "four"]) {
        bench.tree.write({ "pkg/shared/shared.go": libraryGo("shared", text) });
        expect(outcomeOf(await watching.round())).toBe("printed 1 document");
        await Bun.sleep(SETTLED_MS);
      }
      // The work after a round ends before the next round.
      bench.tree.write({ "config/web.yaml": `# new\n${configMap("web", "cmd/web")}` });
      expect(outcomeOf(await watching.round())).toBe("printed 1 document");
      expect(bench.goCalls().slice(before)).toEqual(["build", "build", "build"]);
    });

    test("programs that an earlier run has built are watched too, for each platform", async () => {
      using _bench = open({
        ...APP,
        "cmd/web/main_arm64.go": 'package main\n\nimport _ "example.com/app/pkg/arm"\n',
        "pkg/arm/arm.go": libraryGo("arm", "one"),
      });
      const args = ["--platform=linux/amd64,linux/arm64", "-f", "config"];
      const env = { KO_DEFAULTBASEIMAGE: "ko.builtin/static" };
      await Bun.sleep(SETTLED_MS);
      const before = digests((await bench.ours(["resolve", "-q", ...args], { env })).stdout);
      // go lists only one of the two programs.
      bench.tree.write({ "cmd/alone/main.go": mainGo("other") });
      await using watching = startWatching(bench, ["resolve", "-W", ...args], { env });
      expect(await watching.round()).toContain("cmd/alone");
      await watching.said(/^watching 4 packages, /m);
      expect(digests(watching.printed())).toEqual({ alone: expect.any(String), web: before["web"] ?? "" });
      for (const path of ["pkg/arm/arm.go", "pkg/shared/shared.go"]) {
        bench.tree.write({ [path]: libraryGo(path === "pkg/arm/arm.go" ? "arm" : "shared", "two") });
        const block = await watching.round();
        expect([causeOf(block), outcomeOf(block)]).toEqual([path, expect.stringMatching(/^(?:printed|nothing)/)]);
      }
    });

    test("a change during a build ends it, and the last state wins", async () => {
      using _bench = open();
      // The compiler waits while the file "hold" exists, and records each start.
      const file = (name: string): string => `'${bench.work.at(name)}'`;
      bench.work.write({
        hold: "",
        "slow/go": {
          executable: `#!/bin/sh\n[ "$1" = build ] || exec '${bench.env["KO_GO_PATH"]}' "$@"\necho began >> ${file("builds")}\nwhile [ -e ${file("hold")} ]; do sleep 0.05; done\n'${bench.env["KO_GO_PATH"]}' "$@"\n`,
        },
      });
      const env = { KO_GO_PATH: bench.work.at("slow/go") };
      const builds = (): number =>
        existsSync(bench.work.at("builds")) ? readFileSync(bench.work.at("builds"), "utf8").split("\n").length - 1 : 0;
      await using watching = startWatching(bench, ["resolve", "-W", "-f", "config/alone.yaml"], { env });
      // The very first build, and a later one.
      let begun = 0;
      for (const texts of [["one"], ["two", "three", "four"]]) {
        if (begun === 0) await waitUntil(() => builds() === 1, watching.running);
        begun ||= 1;
        bench.work.write({ hold: "" });
        for (const text of texts) {
          bench.tree.write({ "cmd/alone/main.go": mainGo(text) });
          begun++;
          await waitUntil(() => builds() === begun, watching.running);
        }
        rmSync(bench.work.at("hold"));
        const block = await watching.round();
        expect([causeOf(block), outcomeOf(block)]).toEqual(["cmd/alone/main.go", "printed 1 document"]);
        const printed = watching.printed();
        expect(printed.match(/^---$/gm)).toHaveLength(1);
        expect(digests(printed)).toEqual(await fresh(["-f", "config/alone.yaml"]));
      }
    });

    test("wrong usage is refused: an archive on stdout, no -f, no KO_DOCKER_REPO", async () => {
      using _bench = open();
      const refused = (args: readonly string[], env = {}): ReturnType<Bench["ours"]> => bench.ours(args, { env });
      expect(await refused(["build", "-W", "--tarball", "-", "./cmd/alone"])).toMatchObject({
        code: 2,
        stdout: "",
        stderr: expect.stringContaining("Cannot write an archive to stdout with --watch"),
      });
      expect(await refused(["resolve", "-W"])).toMatchObject({ code: 2, stdout: "" });
      expect(await refused(["resolve", "-W", "-f", "config"], { KO_DOCKER_REPO: "" })).toMatchObject({
        code: 2,
        stderr: expect.stringContaining("KO_DOCKER_REPO"),
      });
    });
  });

  describe("ko build -W", () => {
    test("prints the references that changed, of programs that appear too", async () => {
      using _bench = open();
      const refs = bench.work.at("refs");
      await using watching = startWatching(bench, ["build", "-W", "--image-refs", refs, "./..."]);
      await watching.round();
      await watching.said(/^watching /m);
      const first = digests(watching.printed());
      expect(Object.keys(first)).toEqual(["alone", "api", "web"]);
      bench.tree.write({ "pkg/shared/shared.go": libraryGo("shared", "two") });
      expect(outcomeOf(await watching.round())).toBe("printed 2 references");
      const second = digests(watching.printed());
      expect(Object.keys(second)).toEqual(["api", "web"]);
      // The file lists all programs.
      expect(digests(readFileSync(refs, "utf8"))).toEqual({ ...first, ...second });
      bench.tree.write({ "cmd/late/main.go": mainGo() });
      await watching.said(/^ {2}printed 1 reference,/m);
      expect(Object.keys(digests(watching.printed()))).toEqual(["late"]);
      expect(await watching.end("SIGTERM")).toMatchObject({ code: 143 });
    });

    test("ends when its stdout is closed", async () => {
      using _bench = open();
      const [first = "", ...rest] = ourCommand();
      const words = [first, ...rest, "build", "-W", "./cmd/alone"].map((word) => `'${word}'`).join(" ");
      const script = `(${words}; echo "exit code $?" >&2) | head -n 1`;
      const running = start(["sh", "-c", script], { cwd: bench.tree.path, env: bench.env, ownGroup: true });
      await waitUntil(() => /^watching /m.test(running.stderr()), running);
      bench.tree.write({ "cmd/alone/main.go": mainGo("other") });
      const { stdout, stderr } = await running.result;
      expect(Object.keys(digests(stdout))).toEqual(["alone"]);
      expect(stderr).toMatch(/^Error: Cannot write to standard output: .*\nexit code 1\n$/m);
    });
  });

  describe("ko apply -W", () => {
    /** A kubectl that keeps its input as `in-N`, runs `more`, and prints what it got. */
    function stub(more = ""): Readonly<Record<string, string>> {
      const at = bench.work.at("");
      return bench.stubKubectl(
        `n=$(ls '${at}' | grep -c '^in-'); cat > '${at}/in-'$n.part; mv '${at}/in-'$n.part '${at}/in-'$n; ${more}\ngrep -o 'name: [a-z]*' '${at}/in-'$n`,
      );
    }

    test("one kubectl for each round, with the affected documents only; a file of two programs comes once", async () => {
      using _bench = open({
        ...APP,
        "config/web.yaml": `${configMap("web", "cmd/web")}---\n${configMap("plain")}---\n${configMap("api", "cmd/api")}`,
      });
      await using watching = startWatching(bench, ["apply", "-W", "-f", "config"], { env: stub() });
      await watching.round();
      await watching.said(/^watching /m);
      expect(watching.printed()).toBe("name: alone\nname: web\nname: plain\nname: api\n");
      bench.tree.write({ "pkg/shared/shared.go": libraryGo("shared", "two") });
      expect(outcomeOf(await watching.round())).toBe("applied 2 documents");
      expect(watching.printed()).toBe("name: web\nname: api\n");
      expect(readFileSync(bench.work.at("in-1"), "utf8").match(/^---$/gm)).toHaveLength(1);
      // The object of a removed document stays, with a note; a moved document is not removed.
      bench.tree.write({ "config/web.yaml": `${configMap("plain")}---\n${configMap("api", "cmd/api")}` });
      const block = await watching.round();
      expect(block).toContain('ConfigMap "web" is no longer in config/web.yaml: it is left in the cluster\n');
      expect(outcomeOf(block)).toBe("applied 2 documents");
      rmSync(bench.tree.at("config/web.yaml"));
      bench.tree.write({ "config/moved.yaml": configMap("api", "cmd/api") });
      const moved = await watching.said(/^ {2}applied.*\n/m);
      expect(moved).toContain('ConfigMap "plain" is no longer in config/web.yaml');
      expect(moved).not.toContain('ConfigMap "api" is no longer');
    });

    test("a kubectl that fails, or is killed, is reported, and the watch goes on", async () => {
      using _bench = open();
      const at = bench.work.at("fail");
      const env = stub(`s=$(cat '${at}' 2>&-); [ -z "$s" ] || { echo "error: no such cluster" >&2; kill -"$s" $$; }`);
      bench.work.write({ fail: "KILL" });
      await using watching = startWatching(bench, ["apply", "-W", "-f", "config/alone.yaml"], { env });
      const block = await watching.round();
      expect(block).toContain("error: no such cluster\n");
      expect(block).toMatch(/kubectl: ended by SIGKILL\n {2}failed, .*; ko tries again$/m);
      // A retry with the same output shows nothing.
      await waitUntil(() => existsSync(bench.work.at("in-1")), watching.running);
      rmSync(at);
      const mended = await watching.round();
      expect(outcomeOf(mended)).toBe("applied 1 document");
      expect(watching.running.stderr().match(/no such cluster/g)).toHaveLength(1);
    });

    test("a change while kubectl runs lets it finish, and applies the last state after it", async () => {
      using _bench = open();
      const hold = bench.work.at("hold");
      const env = stub(`while [ -e '${hold}' ]; do sleep 0.05; done; echo finished >&2`);
      await using watching = startWatching(bench, ["apply", "-W", "-f", "config/alone.yaml"], { env });
      await watching.round();
      await watching.said(/^watching /m);
      bench.work.write({ hold: "" });
      bench.tree.write({ "cmd/alone/main.go": mainGo("one") });
      await waitUntil(() => existsSync(bench.work.at("in-1")), watching.running);
      bench.tree.write({ "cmd/alone/main.go": mainGo("two") });
      bench.tree.write({ "cmd/alone/main.go": mainGo("three") });
      rmSync(hold);
      expect(await watching.round()).toContain("finished\n");
      expect(outcomeOf(await watching.round())).toBe("applied 1 document");
      expect(digests(readFileSync(bench.work.at("in-2"), "utf8"))).toEqual(await fresh(["-f", "config/alone.yaml"]));
    });

    const MARK = "KO_TEST_MARK";

    describe.each<[NodeJS.Signals, number]>([
      ["SIGINT", 130],
      ["SIGTERM", 143],
    ])("%s", (signal, code) => {
      test.each<[string, boolean]>([
        ["between rounds", false],
        ["in the middle of a build", true],
        ["in the middle of kubectl", false],
      ])("%s ends it at once, and nothing is left", async (when, isBuilding) => {
        using _bench = open();
        const mark = crypto.randomUUID();
        bench.work.write({
          tmp: null,
          "slow/go": {
            executable: `#!/bin/sh\n[ "$1" = build ] || exec '${bench.env["KO_GO_PATH"]}' "$@"\n: > '${bench.work.at("building")}'\nsleep 300 &\nwait\n`,
          },
        });
        const inKubectl = when === "in the middle of kubectl";
        const env = {
          ...stub(inKubectl ? "exec sleep 300" : ""),
          [MARK]: mark,
          TMPDIR: bench.work.at("tmp"),
          ...(isBuilding ? { KO_GO_PATH: bench.work.at("slow/go") } : {}),
        };
        await using watching = startWatching(bench, ["apply", "-W", "-f", "config/alone.yaml"], { env });
        if (isBuilding) await waitUntil(() => existsSync(bench.work.at("building")), watching.running);
        else if (inKubectl) await waitUntil(() => existsSync(bench.work.at("in-0")), watching.running);
        else await watching.said(/^watching /m);
        const ended = await watching.end(signal);
        expect({ code: ended.code, last: ended.stderr.split("\n").at(-2) }).toEqual({
          code,
          last: "stopped",
        });
        expect(await survivorsWith(MARK, mark)).toEqual([]);
      });
    });
  });
});
