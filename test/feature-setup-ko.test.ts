/**
 * The action setup-ko: its script runs with the files of a runner, and a server with a small release.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parse } from "yaml";
import { type Tree, writeTree } from "./helpers/world-folders.ts";
import { type Result, runToEnd } from "./helpers/world-programs.ts";

const ACTION = join(import.meta.dir, "..", ".github", "actions", "setup-ko");

/** A ko that notes how it logs in. */
const KO = `#!/bin/sh
case $1 in
version) echo v9.8.7 ;;
login) echo "$@" >"$RUNNER_TEMP/login"; cat >"$RUNNER_TEMP/password" ;;
esac
`;
const BROKEN = "#!/bin/sh\necho 'libstdc++.so.6 not found' >&2\nexit 127\n";

const FILES: Readonly<Record<string, string>> = {
  "ko-linux-x64": KO,
  "ko-linux-arm64": `${KO}# arm64\n`,
  "ko-linux-x64-musl": `${KO}# musl\n`,
  "ko-darwin-arm64": `${KO}# darwin\n`,
  "ko-windows-x64.exe": `${KO}# windows\n`,
};

function sha256(text: string): string {
  return new Bun.CryptoHasher("sha256").update(text).digest("hex");
}

interface Ending extends Result {
  /** The lines of GITHUB_ENV and GITHUB_PATH. */
  readonly env: string;
  readonly path: string;
  /** The executable; undefined if there is none. */
  readonly ko: string | undefined;
  readonly login: string | undefined;
  readonly password: string | undefined;
}

function read(tree: Tree, path: string): string | undefined {
  try {
    return readFileSync(tree.at(path), "utf8");
  } catch {
    return undefined;
  }
}

describe("setup-ko", () => {
  let server: Bun.Server<undefined>;
  const asked: string[] = [];

  beforeAll(() => {
    server = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      fetch: (request) => {
        const path = new URL(request.url).pathname;
        asked.push(path);
        const [folder = "", name = ""] = path.split("/").slice(-2);
        const files = folder === "broken" ? { ...FILES, "ko-linux-x64": BROKEN } : FILES;
        if (name !== "SHA256SUMS") return new Response(files[name] ?? "", { status: name in files ? 200 : 404 });
        const names = Object.keys(files).filter((each) => folder !== "unlisted" || each !== "ko-linux-x64");
        const sums = names.map((each) => `${sha256(folder === "wrong" ? "other" : (files[each] ?? ""))}  ${each}\n`);
        return new Response(folder === "absent" ? "" : sums.join(""), { status: folder === "absent" ? 404 : 200 });
      },
    });
  });
  afterAll(() => server.stop(true));

  async function setUp(changes: Readonly<Record<string, string>> = {}): Promise<Ending> {
    using tree = writeTree({
      path: "",
      env: "",
      temp: null,
      "bin/ldd": { executable: `#!/bin/sh\necho "\${TEST_LIBC:-ldd (GNU libc) 2.41}" >&2\n` },
      "bin/sudo": { executable: '#!/bin/sh\necho "$@" >"$RUNNER_TEMP/sudo"\n' },
    });
    const origin = `http://127.0.0.1:${server.port}`;
    const result = await runToEnd(["sh", join(ACTION, "setup.sh")], {
      cwd: tree.path,
      env: {
        PATH: `${tree.at("bin")}:${process.env["PATH"] ?? ""}`,
        ...{ RUNNER_TEMP: tree.at("temp"), RUNNER_OS: "Linux", RUNNER_ARCH: "X64" },
        ...{ GITHUB_PATH: tree.at("path"), GITHUB_ENV: tree.at("env"), GITHUB_ACTION_PATH: ACTION },
        ...{ GITHUB_REPOSITORY: "Team/Shop", GITHUB_ACTOR: "me", GITHUB_SERVER_URL: origin },
        ...{ SETUP_VERSION: "latest-release", SETUP_USE_SUDO: "false", SETUP_URL: "", SETUP_TOKEN: "t0ken" },
        SETUP_REPOSITORY: "maker/ko",
        ...changes,
        ...(changes["SETUP_URL"] === undefined ? {} : { SETUP_URL: `${origin}${changes["SETUP_URL"]}` }),
      },
    });
    const replace = (text: string | undefined): string => (text ?? "").replaceAll(tree.path, "TREE");
    return {
      ...result,
      env: replace(read(tree, "env")),
      path: replace(read(tree, "path") + (read(tree, "temp/sudo") ?? "")),
      ko: read(tree, "temp/setup-ko/ko") ?? read(tree, "temp/setup-ko/ko.exe"),
      login: read(tree, "temp/login"),
      password: read(tree, "temp/password"),
    };
  }

  test("puts the latest release on the PATH, names the repository, and logs in", async () => {
    asked.length = 0;
    const ending = await setUp();
    expect(ending).toEqual({
      code: 0,
      stdout: "",
      stderr: "Installed ko v9.8.7\nKO_DOCKER_REPO is ghcr.io/team/shop\n",
      env: "KO_DOCKER_REPO=ghcr.io/team/shop\n",
      path: "TREE/temp/setup-ko\n",
      ko: KO,
      login: "login ghcr.io --username me --password-stdin\n",
      password: "t0ken",
    });
    const folder = "/maker/ko/releases/latest/download";
    expect(asked).toEqual([`${folder}/SHA256SUMS`, `${folder}/ko-linux-x64`]);
  });

  test.each<[string, Readonly<Record<string, string>>, string]>([
    ["Linux on arm64", { RUNNER_ARCH: "ARM64" }, "/maker/ko/releases/latest/download/ko-linux-arm64"],
    ["Alpine", { TEST_LIBC: "musl libc (x86_64)" }, "/maker/ko/releases/latest/download/ko-linux-x64-musl"],
    ["macOS", { RUNNER_OS: "macOS", RUNNER_ARCH: "ARM64" }, "/maker/ko/releases/latest/download/ko-darwin-arm64"],
    ["Windows", { RUNNER_OS: "Windows" }, "/maker/ko/releases/latest/download/ko-windows-x64.exe"],
    ["a release", { SETUP_VERSION: "v0.1.0" }, "/maker/ko/releases/download/v0.1.0/ko-linux-x64"],
    ["the action of the same repository", { SETUP_REPOSITORY: "" }, "/Team/Shop/releases/latest/download/ko-linux-x64"],
    ["a mirror", { SETUP_URL: "/mirror/" }, "/mirror/ko-linux-x64"],
  ])("%s", async (_name, changes, path) => {
    asked.length = 0;
    const { code, ko } = await setUp(changes);
    expect([code, asked.at(-1)]).toEqual([0, path]);
    expect(ko).toBe(FILES[path.slice(path.lastIndexOf("/") + 1)]);
  });

  test.each<[string, Readonly<Record<string, string>>, string]>([
    ["another digest", { SETUP_URL: "/wrong" }, "/wrong/ko-linux-x64 is "],
    ["no SHA256SUMS", { SETUP_URL: "/absent" }, "Cannot download http"],
    ["a file that SHA256SUMS does not list", { SETUP_URL: "/unlisted" }, "SHA256SUMS does not list ko-linux-x64"],
    ["another architecture", { RUNNER_ARCH: "X86" }, "There is no ko for the architecture X86"],
    ["Windows on arm64", { RUNNER_OS: "Windows", RUNNER_ARCH: "ARM64" }, "There is no ko for Windows on ARM64"],
    ["another system", { RUNNER_OS: "Plan 9" }, "There is no ko for the system Plan 9"],
    ["another version", { SETUP_VERSION: "1.2.3" }, "Cannot use version 1.2.3"],
    ["lines in the version", { SETUP_VERSION: "x\n::add-mask::y" }, "Cannot use version x ::add-mask::y"],
    ["a ko that does not start", { SETUP_URL: "/broken" }, "apk add libstdc++"],
  ])("refuses %s", async (_name, changes, message) => {
    const { code, env, login, path, stderr, stdout } = await setUp(changes);
    expect({ code, env, login, path, stdout }).toEqual({ code: 1, env: "", login: undefined, path: "", stdout: "" });
    const lines = stderr.split("\n").filter((line) => line.startsWith("::"));
    expect(lines).toEqual([expect.stringMatching(/^::error title=setup-ko::/)]);
    expect(lines[0]).toContain(message);
  });

  test.each<[string, Readonly<Record<string, string>>, Partial<Ending>]>([
    ["a file with another digest is not started", { SETUP_URL: "/wrong" }, { code: 1, ko: undefined }],
    [
      "KO_DOCKER_REPO stays, and there is no login then",
      { KO_DOCKER_REPO: "registry.example.com/team" },
      { code: 0, env: "KO_DOCKER_REPO=registry.example.com/team\n", login: undefined },
    ],
    [
      "KO_DOCKER_REPO of several lines sets no other variable",
      { KO_DOCKER_REPO: "a\nPATH=/tmp" },
      { code: 1, env: "" },
    ],
    [
      "use-sudo installs where steps with sudo find it",
      { SETUP_USE_SUDO: "true" },
      { code: 0, path: "install -m 755 TREE/temp/setup-ko/ko /usr/local/bin/ko\n" },
    ],
  ])("%s", async (_name, changes, expected) => {
    expect(await setUp(changes)).toMatchObject(expected);
  });

  test("tip compiles the commit of the action", async () => {
    using tree = writeTree({
      "bin/npm": { executable: `#!/bin/sh\n[ "$1" = ci ] || printf '%s' '${KO}' >"$5"\n` },
    });
    const { code, ko } = await setUp({
      SETUP_VERSION: "tip",
      PATH: `${tree.at("bin")}:${process.env["PATH"] ?? ""}`,
    });
    expect([code, ko]).toEqual([0, KO]);
  });

  test("action.yml has the inputs of ko-build/setup-ko, and hands each to the script", () => {
    const action: {
      readonly inputs: Readonly<Record<string, { readonly default: string }>>;
      readonly runs: { readonly steps: readonly { readonly run: string; readonly env: Record<string, string> }[] };
    } = parse(readFileSync(join(ACTION, "action.yml"), "utf8"));
    expect(action.inputs).toMatchObject({ version: { default: "latest-release" }, "use-sudo": { default: "false" } });
    const script = readFileSync(join(ACTION, "setup.sh"), "utf8");
    for (const { env, run } of action.runs.steps) {
      expect(run).toBe('sh "$GITHUB_ACTION_PATH/setup.sh"');
      const inputs = Object.values(env).flatMap((value) => /^\$\{\{ inputs\.([\w-]+) \}\}$/.exec(value)?.[1] ?? []);
      expect(new Set(inputs)).toEqual(new Set(Object.keys(action.inputs)));
      for (const name of Object.keys(env)) expect(script).toContain(`$${name}`.replace("$", ""));
    }
  });
});
