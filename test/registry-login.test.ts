import { describe, expect, test } from "bun:test";
import { lstatSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { createKeychain } from "../lib/registry-keychain.ts";
import { login, logout } from "../lib/registry-login.ts";
import { describeError } from "../lib/errors.ts";
import type { Log } from "../lib/log.ts";
import { parseRepository } from "../lib/reference.ts";
import { rejectionOf } from "./helpers/failures.ts";
import { type Tree, type TreeEntry, writeTree } from "./helpers/world-folders.ts";
import { hostAt, runKoHere } from "./helpers/world-host.ts";

const SECRET = "canary/p+ss&w:rd";
const base64 = (text: string): string => Buffer.from(text).toString("base64");
const AUTH = base64(`me:${SECRET}`);

interface World extends Disposable {
  readonly tree: Tree;
  /** What was said, with the root as `$ROOT`. */
  readonly said: string[];
  login(server: string, flags?: { username?: string; password?: string; stdin?: string }): Promise<void>;
  logout(server: string): Promise<void>;
  /** The login that the registry client finds: `user:password`. */
  find(name: string): Promise<string | undefined>;
  read(path: string): string;
}

/** A home directory; `$ROOT` in contents and variables is its path. */
function makeWorld(files: Readonly<Record<string, TreeEntry>>, env: Readonly<Record<string, string>> = {}): World {
  const tree = writeTree({});
  const fill = (text: string): string => text.replaceAll("$ROOT", tree.path);
  for (const [path, entry] of Object.entries(files)) {
    const isProgram = typeof entry === "object" && entry !== null && "executable" in entry;
    tree.write({ [path]: isProgram ? { executable: fill(entry.executable) } : entry });
  }
  const variables = Object.entries(env).map(([name, value]) => [name, fill(value)]);
  const said: string[] = [];
  const say = (message: string): void => void said.push(message.replaceAll(tree.path, "$ROOT"));
  const log: Log = { info: say, warn: (message) => say(`Warning: ${message}`), debug: say };
  const changes = {
    env: { HOME: tree.path, PATH: `${tree.path}/bin:/usr/bin:/bin`, ...Object.fromEntries(variables) },
  };
  const host = hostAt(tree.path, changes);
  return {
    tree,
    said,
    login: (server, { username = "me", password = "", stdin = SECRET } = {}) => {
      const readStdin = async (): Promise<Uint8Array> => new TextEncoder().encode(stdin);
      const context = { host: { ...host, readStdin }, log };
      const flags = { username, password, "password-stdin": password === "" };
      return login(server, { context, flags });
    },
    logout: (server) => logout(server, { host, log }),
    find: async (name) => {
      const found = await createKeychain(host, log).find(parseRepository(name));
      return found?.credential.kind === "basic"
        ? `${found.credential.username}:${found.credential.password}`
        : found?.credential.kind;
    },
    read: (path) => readFileSync(tree.at(path), "utf8"),
    [Symbol.dispose]: () => tree[Symbol.dispose](),
  };
}

const DOCKER = ".docker/config.json";
const modeOf = (path: string): string => (statSync(path).mode & 0o777).toString(8);

describe("login()", () => {
  test("makes a file that only its owner can read", async () => {
    using world = makeWorld({});
    await world.login("r.example:5000");
    expect({
      text: world.read(DOCKER),
      mode: modeOf(world.tree.at(DOCKER)),
      folder: modeOf(world.tree.at(".docker")),
      others: readdirSync(world.tree.at(".docker")),
      found: await world.find("r.example:5000/app"),
    }).toEqual({
      text: `{\n\t"auths": {\n\t\t"r.example:5000": {\n\t\t\t"auth": "${AUTH}"\n\t\t}\n\t}\n}`,
      mode: "600",
      folder: "700",
      others: ["config.json"],
      found: `me:${SECRET}`,
    });
    expect(world.said.slice(0, 2)).toEqual([
      "Warning: The password is stored unencrypted in $ROOT/.docker/config.json; a credential helper (credsStore) would encrypt it.",
      "Logged in to r.example:5000 as me, by $ROOT/.docker/config.json",
    ]);
  });

  test("keeps unknown fields, their order, the indentation and the mode of a file", async () => {
    const before = {
      psFormat: "table",
      auths: {
        "other.example": { auth: "b3RoZXI6MQ==", email: "a@b" },
        "r.example": { auth: "bWU6MQ==", email: "me@b" },
      },
      HttpHeaders: { "X-A": "1" },
      "10": [1, { "2": null }],
      detachKeys: "ctrl-e,e",
    };
    using world = makeWorld({ [DOCKER]: { text: `${JSON.stringify(before, null, 4)}\n`, mode: 0o640 } });
    await world.login("r.example");
    const after = { ...before, auths: { ...before.auths, "r.example": { email: "me@b", auth: AUTH } } };
    expect(world.read(DOCKER)).toBe(`${JSON.stringify(after, null, 4)}\n`);
    expect(modeOf(world.tree.at(DOCKER))).toBe("640");
  });

  test("keeps a file of one line on one line", async () => {
    using world = makeWorld({ [DOCKER]: '{"credHelpers":{"x.example":"x"}}' });
    await world.login("r.example");
    expect(world.read(DOCKER)).toBe(`{"auths":{"r.example":{"auth":"${AUTH}"}},"credHelpers":{"x.example":"x"}}`);
  });

  test.each<[string, string, string]>([
    [
      "an identity token",
      '{"auths":{"r.example":{"identitytoken":"old"}}}',
      `{"auths":{"r.example":{"auth":"${AUTH}"}}}`,
    ],
    [
      "the same host as a URL and in capitals",
      '{"auths":{"https://r.example/v1/":{"auth":"b2xkOjE="},"R.Example":{"auth":"b2xkOjE="},"r.example/team":{"auth":"b2xkOjE="}}}',
      `{"auths":{"r.example/team":{"auth":"b2xkOjE="},"r.example":{"auth":"${AUTH}"}}}`,
    ],
    ["nothing in an empty file", "\n", `{\n\t"auths": {\n\t\t"r.example": {\n\t\t\t"auth": "${AUTH}"\n\t\t}\n\t}\n}\n`],
    ["auths that is null", '{"auths":null}', `{"auths":{"r.example":{"auth":"${AUTH}"}}}`],
  ])("replaces %s", async (_, before, after) => {
    using world = makeWorld({ [DOCKER]: before });
    await world.login("r.example");
    expect({ text: world.read(DOCKER), found: await world.find("r.example/app") }).toEqual({
      text: after,
      found: `me:${SECRET}`,
    });
  });

  test.each(["docker.io", "index.docker.io", "registry-1.docker.io", "Docker.io"])(
    "stores %s as Docker does",
    async (name) => {
      using world = makeWorld({ [DOCKER]: '{"auths":{"docker.io":{"auth":"b2xkOjE="}}}' });
      await world.login(name);
      expect({ text: world.read(DOCKER), found: await world.find("ubuntu") }).toEqual({
        text: `{"auths":{"https://index.docker.io/v1/":{"auth":"${AUTH}"}}}`,
        found: `me:${SECRET}`,
      });
    },
  );

  const empty = '{"auths":{}}';
  test.each<[string, Readonly<Record<string, TreeEntry>>, Readonly<Record<string, string>>, string]>([
    ["DOCKER_CONFIG", {}, { DOCKER_CONFIG: "$ROOT/dc" }, "dc/config.json"],
    ["DOCKER_CONFIG, though the home has one", { [DOCKER]: empty }, { DOCKER_CONFIG: "$ROOT/dc" }, "dc/config.json"],
    ["podman's file", { ".config/containers/auth.json": empty }, {}, ".config/containers/auth.json"],
    [
      "podman's of the session",
      { "run/containers/auth.json": empty },
      { XDG_RUNTIME_DIR: "$ROOT/run" },
      "run/containers/auth.json",
    ],
    ["Docker's before podman's", { [DOCKER]: empty, ".config/containers/auth.json": empty }, {}, DOCKER],
    ["REGISTRY_AUTH_FILE, if there is no file", {}, { REGISTRY_AUTH_FILE: "$ROOT/a/b.json" }, "a/b.json"],
    ["not REGISTRY_AUTH_FILE of a user of Docker", { [DOCKER]: empty }, { REGISTRY_AUTH_FILE: "$ROOT/b.json" }, DOCKER],
  ])("writes where credentials are read: %s", async (_, files, env, path) => {
    using world = makeWorld(files, env);
    await world.login("r.example");
    expect({ text: world.read(path), found: await world.find("r.example/app") }).toEqual({
      text: expect.stringContaining(AUTH),
      found: `me:${SECRET}`,
    });
  });

  test("keeps a symlink, and changes the file that it leads to", async () => {
    using world = makeWorld({ "dot/config.json": "{}", ".docker/config.json": { link: "../dot/config.json" } });
    await world.login("r.example");
    expect(lstatSync(world.tree.at(DOCKER)).isSymbolicLink()).toBe(true);
    expect(world.read("dot/config.json")).toContain(AUTH);
    expect(readdirSync(world.tree.at("dot"))).toEqual(["config.json"]);
  });

  test("many at once lose no login", async () => {
    using world = makeWorld({});
    const hosts = Array.from({ length: 6 }, (_, i) => `r${i}.example`);
    await Promise.all(hosts.map((host) => world.login(host)));
    const value: unknown = JSON.parse(world.read(DOCKER));
    expect(value).toEqual({ auths: Object.fromEntries(hosts.map((host) => [host, { auth: AUTH }])) });
  });

  test.each<[string, { username?: string; password?: string; stdin?: string }, string]>([
    ["no user", { username: "" }, 'Cannot log in to "r.example": there is no user'],
    [
      "a user with a colon",
      { username: "a:b" },
      'Cannot log in to "r.example": the user has a ":" or a control character',
    ],
    ["an empty password", { stdin: "\r\n" }, 'Cannot log in to "r.example": the password on stdin is empty'],
  ])("refuses %s", async (_, flags, wanted) => {
    using world = makeWorld({});
    expect(describeError(await rejectionOf(world.login("r.example", flags)))).toStartWith(`Error: ${wanted}`);
    expect(readdirSync(world.tree.path)).toEqual([]);
  });

  test.each<[string, string]>([
    ["https://r.example", "ko login r.example"],
    ["https://r.example/v2/", "ko login r.example"],
    ["r.example/team", "ko login r.example"],
    [`https://me:${SECRET}@r.example`, "ko login registry.example.com"],
    [`me:${SECRET}@r.example`, "ko login registry.example.com"],
    ["", "ko login registry.example.com"],
    ["r.example:port", "ko login registry.example.com"],
  ])("refuses the server %p without quoting it", async (server, hint) => {
    using world = makeWorld({});
    expect(describeError(await rejectionOf(world.login(server)))).toBe(
      `Error: Cannot use the SERVER of "ko login": wanted HOST[:PORT], without scheme, user and path\n  For example: ${hint}`,
    );
  });

  test.each(['{"auths": canary', '["canary"]', '{"auths":"canary"}'])(
    "refuses a broken file and leaves it: %s",
    async (text) => {
      using world = makeWorld({ [DOCKER]: text });
      const message = describeError(await rejectionOf(world.login("r.example")));
      expect(message).toContain(`Cannot read the credentials in ${world.tree.path}/.docker/config.json`);
      expect(message).not.toContain("canary");
      expect({ text: world.read(DOCKER), files: readdirSync(world.tree.at(".docker")) }).toEqual({
        text,
        files: ["config.json"],
      });
    },
  );

  test("says that DOCKER_AUTH_CONFIG comes first", async () => {
    using world = makeWorld({}, { DOCKER_AUTH_CONFIG: '{"auths":{"r.example":{"auth":"YTpi"}}}' });
    await world.login("other.example");
    await world.login("r.example");
    expect(world.said.filter((line) => line.includes("DOCKER_AUTH_CONFIG"))).toEqual([
      "Warning: DOCKER_AUTH_CONFIG has another login to r.example, which is used before that of the file.",
    ]);
  });
});

/** Keeps the stdin of each of its verbs in a file. */
const helper = { executable: "#!/bin/sh\ncat > $ROOT/said-$1\necho canary-out; echo canary-err >&2\n" };

describe("login() with a credential helper", () => {
  test.each<[string, string, string, string]>([
    ["credsStore", '{"credsStore":"t"}', "r.example", "r.example"],
    ["credHelpers", '{"credsStore":"none","credHelpers":{"r.example":"t"}}', "r.example", "r.example"],
    ["credHelpers of Docker Hub", '{"credHelpers":{"docker.io":"t"}}', "docker.io", "https://index.docker.io/v1/"],
  ])("stores by %s", async (_, text, server, url) => {
    using world = makeWorld({ [DOCKER]: text, "bin/docker-credential-t": helper });
    await world.login(server);
    const file: unknown = JSON.parse(world.read(DOCKER));
    const fields: unknown = JSON.parse(text);
    expect({ stored: JSON.parse(world.read("said-store")), file }).toEqual({
      stored: { ServerURL: url, Username: "me", Secret: SECRET },
      file: Object.assign({ auths: { [url]: {} } }, fields),
    });
    expect(world.said.join("\n")).not.toMatch(/canary|unencrypted/);
    await world.logout(server);
    const after: unknown = JSON.parse(world.read(DOCKER));
    expect({ erased: world.read("said-erase"), after }).toEqual({
      erased: url,
      after: Object.assign({ auths: {} }, fields),
    });
  });

  test.each<[string, Readonly<Record<string, TreeEntry>>, string]>([
    ["is missing", {}, "the program is not on PATH"],
    [
      "fails",
      { "bin/docker-credential-t": { executable: "#!/bin/sh\necho canary; cat >&2; exit 3\n" } },
      "exit code 3",
    ],
  ])("changes nothing if it %s", async (_, files, why) => {
    const text = '{"credsStore":"t","auths":{"r.example":{}}}';
    using world = makeWorld({ [DOCKER]: text, ...files });
    for (const [work, verb] of [
      [() => world.login("r.example"), "store the credentials for"],
      [() => world.logout("r.example"), "remove the credentials for"],
    ] as const) {
      const message = describeError(await rejectionOf(work));
      expect(message).toContain(`Cannot ${verb} "r.example"`);
      expect(message).toContain(`docker-credential-t (credsStore in ${world.tree.path}/.docker/config.json): ${why}`);
      expect(message).not.toContain("canary");
    }
    expect(world.read(DOCKER)).toBe(text);
  });
});

describe("logout()", () => {
  test("removes the login and nothing else", async () => {
    const text =
      '{"auths":{"https://r.example/v2/":{"auth":"YTpi"},"r.example":{"auth":"YTpi"},"r.example/x":{"auth":"YTpi"}},"x":1}';
    using world = makeWorld({ [DOCKER]: text });
    await world.logout("r.example");
    expect(world.read(DOCKER)).toBe('{"auths":{"r.example/x":{"auth":"YTpi"}},"x":1}');
    await world.logout("r.example");
    expect(world.said).toEqual([
      "Logged out from r.example, in $ROOT/.docker/config.json",
      "There is no login to r.example in $ROOT/.docker/config.json",
    ]);
  });

  test("makes no file", async () => {
    using world = makeWorld({});
    await world.logout("r.example");
    expect(readdirSync(world.tree.path)).toEqual([]);
    expect(world.said).toEqual(["There is no login to r.example: $ROOT/.docker/config.json does not exist"]);
  });
});

describe("ko login", () => {
  const run = async (args: readonly string[], stdin = "") => {
    using tree = writeTree({});
    const readStdin = async (): Promise<Uint8Array> => new TextEncoder().encode(stdin);
    const result = await runKoHere(args, {
      cwd: tree.path,
      env: { HOME: tree.path, PATH: "/usr/bin:/bin" },
      host: { readStdin },
    });
    const file = Bun.file(join(tree.path, DOCKER));
    return { ...result, file: (await file.exists()) ? await file.text() : "" };
  };

  test("takes the password from stdin, without its line end", async () => {
    for (const end of ["", "\n", "\r\n"]) {
      const result = await run(["login", "r.example", "-u", "me", "--password-stdin"], SECRET + end);
      expect(result).toEqual({
        code: 0,
        stdout: "",
        stderr: expect.any(String),
        file: expect.stringContaining(`"${AUTH}"`),
      });
    }
  });

  test("is ko auth login too, as in the original", async () => {
    const { code, file } = await run(["auth", "login", "r.example", "-u", "me", "--password-stdin"], SECRET);
    expect({ code, has: file.includes(AUTH) }).toEqual({ code: 0, has: true });
    expect((await run(["auth", "logout", "r.example"])).code).toBe(0);
  });

  test("warns of a password in the process list", async () => {
    const { code, file, stderr } = await run(["login", "r.example", "-u", "me", "-p", SECRET]);
    expect({ code, has: file.includes(AUTH) }).toEqual({ code: 0, has: true });
    expect(stderr).toStartWith("Warning: --password shows the password in the process list and in the shell's history");
  });

  test("prefers stdin to --password, as the original", async () => {
    const { file } = await run(["login", "r.example", "-u", "me", "-p", "other", "--password-stdin"], SECRET);
    expect(file).toContain(AUTH);
  });

  test.each<[string, readonly string[], string]>([
    [
      "no server",
      ["login", "-u", "me", "-p", SECRET],
      'Cannot run "ko login" without SERVER: it takes exactly 1 argument',
    ],
    ["no password", ["login", "r.example", "-u", "me"], 'Cannot log in to "r.example": there is no password'],
    [
      "a password in two words",
      ["login", "r.example", "-u", "me", "-p", "a", SECRET],
      'Cannot run "ko login" with 2 arguments: it takes 1 argument',
    ],
    [
      "a misspelt flag",
      ["login", "r.example", "-u", "me", `--pasword=${SECRET}`],
      'Cannot use --pasword: "ko login" has no such flag, the nearest is --password',
    ],
    [
      "a URL with a password",
      ["login", `https://me:${SECRET}@r.example`, "-u", "me", "-p", SECRET],
      'Cannot use the SERVER of "ko login"',
    ],
  ])("is wrong usage with %s, and quotes no secret", async (_, args, wanted) => {
    const { code, file, stderr, stdout } = await run(args);
    expect({ code, file, stdout }).toEqual({ code: 2, file: "", stdout: "" });
    expect(stderr).toContain(`Error: ${wanted}`);
    for (const form of [SECRET, base64(SECRET), encodeURIComponent(SECRET), AUTH]) expect(stderr).not.toContain(form);
  });
});
