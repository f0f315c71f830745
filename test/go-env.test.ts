import { afterEach, describe, expect, test } from "bun:test";
import { readdirSync, realpathSync, symlinkSync } from "node:fs";
import { dirname, join } from "node:path";
import { readSettings, settingsFile } from "../lib/go-env.ts";
import { type Files, type Tree, writeTree } from "./helpers/world-folders.ts";
import { output } from "./helpers/world-programs.ts";

const GO = Bun.which("go") ?? "";
const REAL = GO === "" ? "" : dirname(dirname(realpathSync(GO)));

let tree: Tree | undefined;

afterEach(() => {
  tree?.[Symbol.dispose]();
  tree = undefined;
});

/** A Go installation of links, with a go.env of its own. */
function open(own: string | undefined, files: Files): Tree {
  tree = writeTree({ home: null, goroot: null, ...files, ...(own === undefined ? {} : { "goroot/go.env": own }) });
  for (const name of readdirSync(REAL)) {
    if (name !== "go.env") symlinkSync(join(REAL, name), tree.at(`goroot/${name}`));
  }
  return tree;
}

interface Case {
  readonly name: string;
  readonly env?: Readonly<Record<string, string>>;
  /** The file of `go env -w`. */
  readonly user?: string;
  /** `go.env` of the installation. */
  readonly own?: string;
  readonly files?: Files;
}

const CASES: readonly Case[] = [
  { name: "nothing is set" },
  { name: "the environment", env: { GOFLAGS: "-v", GOPRIVATE: "a" }, user: "GOFLAGS=-x\n", own: "GOFLAGS=-n\n" },
  { name: "an empty variable is as none", env: { GOFLAGS: "" }, user: "GOFLAGS=-x\n" },
  { name: "the user's file", user: "GOFLAGS=-x\nGOPRIVATE=b\n", own: "GOFLAGS=-n\nGOPRIVATE=c\n" },
  { name: "the installation's file", own: "GOFLAGS=-n\nGOPRIVATE=c\n" },
  { name: "twice in the user's file", user: "GOFLAGS=-x\nGOFLAGS=-v\n" },
  { name: "twice in the installation's file", own: "GOFLAGS=-x\nGOFLAGS=-v\n" },
  { name: "twice in both", user: "GOFLAGS=-x\nGOFLAGS=-v\n", own: "GOFLAGS=-n\nGOFLAGS=-a\n" },
  { name: "unset in the user's file", user: "GOFLAGS=\n", own: "GOFLAGS=-n\n" },
  { name: "set, then unset in the installation's file", own: "GOFLAGS=\nGOFLAGS=-n\n" },
  { name: "comments, blanks, small letters", user: "#GOFLAGS=-x\n GOFLAGS=-x\ngoflags=-x\nGOFLAGS\n" },
  { name: "a value with blanks and equals signs", user: "GOPRIVATE= a = b \n" },
  { name: "line ends of Windows, and none at the end", user: "GOPRIVATE=a\r\nGOFLAGS=-v" },
  { name: "GOENV is off", env: { GOENV: "off" }, user: "GOFLAGS=-x\n" },
  { name: "GOENV names another file", env: { GOENV: "TREE/other" }, files: { other: "GOFLAGS=-v\n" } },
  { name: "GOENV in the file does not count", user: "GOENV=TREE/other\n", files: { other: "GOFLAGS=-v\n" } },
  {
    name: "XDG_CONFIG_HOME leads elsewhere",
    env: { XDG_CONFIG_HOME: "TREE/xdg" },
    files: { "xdg/go/env": "GOFLAGS=-v\n" },
  },
  { name: "XDG_CONFIG_HOME is relative", env: { XDG_CONFIG_HOME: "xdg" }, user: "GOFLAGS=-x\n" },
  {
    name: "the user's file names the installation",
    env: { GOROOT: REAL },
    user: "GOROOT=TREE/goroot\n",
    own: "GOFLAGS=-n\n",
  },
  { name: "the installation's file names another, which does not count", own: "GOROOT=/none\nGOFLAGS=-n\n" },
  { name: "the workspace", user: "GOWORK=off\n" },
  { name: "the toolchain, and modules", own: "GOTOOLCHAIN=local\nGO111MODULE=auto\n" },
];

describe.skipIf(GO === "")("readSettings()", () => {
  test.each(CASES)("finds what go finds: $name", async ({ env: more = {}, files = {}, own, user }) => {
    const at = open(own, files);
    const fill = (text: string): string => text.replaceAll("TREE", at.path);
    if (user !== undefined) at.write({ "home/.config/go/env": fill(user) });
    const given = Object.entries(more).map(([name, value]) => [name, fill(value)] as const);
    const env: Record<string, string> = {
      PATH: process.env["PATH"] ?? "",
      HOME: at.at("home"),
      GOROOT: at.at("goroot"),
      ...Object.fromEntries(given),
    };
    const names = ["GOFLAGS", "GOPRIVATE", "GOTOOLCHAIN", "GO111MODULE", "GOROOT"];
    const { GOWORK: work, ...theirs }: Record<string, string> = JSON.parse(
      await output([GO, "env", "-json", "GOWORK", ...names], { cwd: at.path, env }),
    );
    const settings = readSettings({ go: GO, env, platform: process.platform, cwd: at.path });
    const ours: Record<string, unknown> = Object.fromEntries(names.map((name) => [name, settings.get(name)]));
    ours["GOROOT"] = settings.goroot;
    expect(ours).toEqual(theirs);
    expect(settings.get("GOWORK")).toBe(work ?? "");
  });

  test("finds the installation of a go command behind links", () => {
    const at = open("", { "bin/go": { link: "again" }, "bin/again": { link: GO } });
    const options = { env: { HOME: at.at("home") }, platform: process.platform, cwd: at.path };
    const { files, goroot } = readSettings({ go: at.at("bin/go"), ...options });
    expect([goroot, files]).toEqual([REAL, [at.at("home/.config/go/env"), join(REAL, "go.env")]]);
    expect(readSettings({ go: undefined, ...options }).goroot).toBeUndefined();
    expect(readSettings({ go: at.at("goroot/VERSION"), ...options }).goroot).toBeUndefined();
  });

  test("tells which file has a setting", () => {
    const at = open("GOFLAGS=-n\nGOPROXY=off\n", { "home/.config/go/env": "GOFLAGS=-v\n" });
    const env = { HOME: at.at("home"), GOROOT: at.at("goroot"), GOSUMDB: "off" };
    const settings = readSettings({ go: GO, env, platform: process.platform, cwd: at.path });
    const names = ["GOFLAGS", "GOPROXY", "GOSUMDB", "GOWORK"];
    expect(names.map((name) => settings.fileOf(name))).toEqual([
      at.at("home/.config/go/env"),
      at.at("goroot/go.env"),
      undefined,
      undefined,
    ]);
  });
});

describe("settingsFile()", () => {
  test.each<[string, Readonly<Record<string, string>>, string | undefined]>([
    ["linux", { HOME: "/h" }, "/h/.config/go/env"],
    ["linux", { HOME: "/h", XDG_CONFIG_HOME: "/x" }, "/x/go/env"],
    ["linux", { HOME: "/h", XDG_CONFIG_HOME: "x" }, undefined],
    ["linux", {}, undefined],
    ["darwin", { HOME: "/h", XDG_CONFIG_HOME: "/x" }, "/h/Library/Application Support/go/env"],
    ["win32", { AppData: "/a" }, "/a/go/env"],
    ["linux", { HOME: "/h", GOENV: "/e" }, "/e"],
    ["linux", { HOME: "/h", GOENV: "off" }, undefined],
  ])("%s %o: %s", (platform, env, want) => {
    expect(settingsFile(env, platform)).toBe(want);
  });
});
