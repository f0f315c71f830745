import { describe, expect, test } from "bun:test";
import { chmod, mkdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { FoundCredential } from "../lib/registry-credential.ts";
import { chainKeychains, createKeychain } from "../lib/registry-keychain.ts";
import { KoError } from "../lib/errors.ts";
import { createHost, type Host } from "../lib/host.ts";
import type { Log } from "../lib/log.ts";
import { parseRepository } from "../lib/reference.ts";
import { failureOf, rejectionOf } from "./helpers/failures.ts";
import { type Folder, makeFolder } from "./helpers/world-folders.ts";

/** Made once: it listens to signals. */
const real: Host = createHost();

const basic = (text: string): string => Buffer.from(text).toString("base64");

interface World extends AsyncDisposable {
  readonly root: string;
  readonly said: string[];
  find(name: string): Promise<FoundCredential | undefined>;
  explain(name: string): readonly string[];
}

/** Files under a root that is HOME; `$ROOT` in contents and variables is its path. Programs go to `bin/`. */
async function makeWorld(
  files: Record<string, string>,
  env: Record<string, string> = {},
  helperTimeout = 5000,
): Promise<World> {
  const folder: Folder = await makeFolder();
  const root = folder.path;
  for (const [name, text] of Object.entries(files)) {
    await mkdir(dirname(join(root, name)), { recursive: true });
    await Bun.write(join(root, name), text.replaceAll("$ROOT", root));
    if (name.includes("docker-credential-")) await chmod(join(root, name), 0o755);
  }
  const variables = Object.entries(env).map(([key, value]) => [key, value.replaceAll("$ROOT", root)]);
  const said: string[] = [];
  const say = (message: string): void => void said.push(message);
  const log: Log = { info: say, warn: say, debug: say };
  const host: Host = {
    ...real,
    cwd: root,
    env: { HOME: root, PATH: `${root}/bin:/usr/bin:/bin`, ...Object.fromEntries(variables) },
  };
  const keychain = createKeychain(host, log, { helperTimeout });
  return {
    root,
    said,
    find: (name) => keychain.find(parseRepository(name)),
    explain: (name) => keychain.explain?.(parseRepository(name)) ?? [],
    [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose](),
  };
}

/** `user:password`, `identity:…`, `bearer:…` or undefined. */
function shown(found: FoundCredential | undefined): string | undefined {
  const credential = found?.credential;
  if (credential === undefined) return undefined;
  return credential.kind === "basic"
    ? `${credential.username}:${credential.password}`
    : `${credential.kind}:${credential.token}`;
}

const config = (auths: Record<string, unknown>, more: Record<string, unknown> = {}): string =>
  JSON.stringify({ auths, ...more });
const auth = (text: string): { auth: string } => ({ auth: basic(text) });

describe("createKeychain(): which file", () => {
  const entry = (name: string): string => config({ "r.example": auth(`joe:${name}`) });
  const all = {
    ".docker/config.json": entry("home"),
    "dc/config.json": entry("dc"),
    "af.json": entry("af"),
    "run/containers/auth.json": entry("run"),
    "xdg/containers/auth.json": entry("xdg"),
    ".config/containers/auth.json": entry("config"),
  };
  const without = (...names: readonly string[]): Record<string, string> =>
    Object.fromEntries(Object.entries(all).filter(([name]) => !names.includes(name)));
  const env = {
    DOCKER_CONFIG: "$ROOT/dc",
    REGISTRY_AUTH_FILE: "$ROOT/af.json",
    XDG_RUNTIME_DIR: "$ROOT/run",
    XDG_CONFIG_HOME: "$ROOT/xdg",
  };
  test.each<[string, Record<string, string>, Record<string, string>, string | undefined]>([
    ["DOCKER_CONFIG first", all, env, "joe:dc"],
    ["else Docker's in HOME", all, { ...env, DOCKER_CONFIG: "" }, "joe:home"],
    ["an empty DOCKER_CONFIG folder of a Docker user is empty", without("dc/config.json"), env, undefined],
    ["else REGISTRY_AUTH_FILE", without(".docker/config.json", "dc/config.json"), env, "joe:af"],
    ["else podman's of the session", without(".docker/config.json", "dc/config.json", "af.json"), env, "joe:run"],
    ["else podman's in XDG_CONFIG_HOME", without(".docker/config.json"), { XDG_CONFIG_HOME: "$ROOT/xdg" }, "joe:xdg"],
    ["else podman's in HOME", without(".docker/config.json"), {}, "joe:config"],
    ["else nothing", {}, env, undefined],
    ["DOCKER_AUTH_CONFIG wins over files", all, { ...env, DOCKER_AUTH_CONFIG: entry("inline") }, "joe:inline"],
    ["DOCKER_AUTH_CONFIG needs no file", {}, { DOCKER_AUTH_CONFIG: entry("inline") }, "joe:inline"],
    [
      "a host that it lacks is looked up in the file",
      all,
      { DOCKER_AUTH_CONFIG: config({ other: auth("a:b") }) },
      "joe:home",
    ],
  ])("%s", async (_, files, variables, wanted) => {
    await using world = await makeWorld(files, variables);
    expect(shown(await world.find("r.example/app"))).toBe(wanted);
  });

  test("says where it was found", async () => {
    await using world = await makeWorld(all);
    expect((await world.find("r.example/app"))?.source).toBe(
      `auths entry "r.example" in ${world.root}/.docker/config.json`,
    );
  });

  test("reads nothing before it is asked", async () => {
    await using world = await makeWorld({});
    await Bun.write(join(world.root, ".docker/config.json"), entry("late"));
    expect(shown(await world.find("r.example/app"))).toBe("joe:late");
  });

  test.each<[string, Record<string, string>, Record<string, string>, string]>([
    [
      "no JSON",
      { ".docker/config.json": '{"auths": s3cret' },
      {},
      "Cannot read the credentials in $ROOT/.docker/config.json: it is not a JSON object",
    ],
    [
      "auths of another type",
      { ".docker/config.json": '{"auths": ["s3cret"]}' },
      {},
      "Cannot read the credentials in $ROOT/.docker/config.json: auths has the wrong type",
    ],
    [
      "no JSON in the variable",
      {},
      { DOCKER_AUTH_CONFIG: "s3cret" },
      'Cannot read DOCKER_AUTH_CONFIG: wanted {"auths":{"HOST":{"auth":"BASE64"}}} and no other fields',
    ],
    [
      "another field in the variable",
      {},
      { DOCKER_AUTH_CONFIG: '{"auths":{},"credsStore":"x"}' },
      'Cannot read DOCKER_AUTH_CONFIG: wanted {"auths":{"HOST":{"auth":"BASE64"}}} and no other fields',
    ],
  ])("refuses %s without quoting it", async (_, files, env2, wanted) => {
    await using world = await makeWorld(files, env2);
    const { message } = await failureOf(world.find("r.example/app"));
    expect(message).toBe(wanted.replaceAll("$ROOT", world.root));
  });
});

describe("createKeychain(): which entry", () => {
  test.each<[string, Record<string, unknown>, string, string | undefined]>([
    ["the host", { "r.example": auth("a:1") }, "r.example/x/y", "a:1"],
    ["the port belongs to it", { "r.example": auth("a:1") }, "r.example:5000/x", undefined],
    [
      "the longest namespace",
      { "r.example": auth("a:1"), "r.example/x": auth("b:2"), "r.example/x/y": auth("c:3") },
      "r.example/x/y/z",
      "c:3",
    ],
    ["the whole repository", { "r.example/x/y": auth("c:3"), "r.example": auth("a:1") }, "r.example/x/y", "c:3"],
    ["no other namespace", { "r.example/x": auth("b:2") }, "r.example/xy", undefined],
    ["a URL", { "https://r.example/v2/": auth("a:1") }, "r.example/x", "a:1"],
    [
      "the exact key before a URL",
      { "https://r.example": auth("a:1"), "r.example": auth("b:2") },
      "r.example/x",
      "b:2",
    ],
    ["an old key with a version", { "r.example/v1/": auth("a:1") }, "r.example/x", "a:1"],
    ["a host in other case", { "R.Example": auth("a:1") }, "r.example/x", "a:1"],
    ["not a host that ends alike", { "example.com": auth("a:1") }, "evil-example.com/x", undefined],
    ["Docker Hub's old URL", { "https://index.docker.io/v1/": auth("a:1") }, "ubuntu", "a:1"],
    ["docker.io", { "docker.io": auth("a:1") }, "joe/app", "a:1"],
    ["registry-1.docker.io", { "registry-1.docker.io": auth("a:1") }, "joe/app", "a:1"],
    ["a namespace of docker.io", { "docker.io/joe": auth("a:1"), "docker.io": auth("b:2") }, "joe/app", "a:1"],
    ["an empty entry counts for nothing", { "r.example/x": {}, "r.example": auth("a:1") }, "r.example/x", "a:1"],
    ["username and password", { "r.example": { username: "a", password: "p:q" } }, "r.example/x", "a:p:q"],
    [
      "an identity token first",
      { "r.example": { ...auth("a:1"), identitytoken: "tok" } },
      "r.example/x",
      "identity:tok",
    ],
    [
      "a registry token first of all",
      { "r.example": { ...auth("a:1"), identitytoken: "t", registrytoken: "reg" } },
      "r.example/x",
      "bearer:reg",
    ],
    ["a colon in the password", { "r.example": auth("a:b:c") }, "r.example/x", "a:b:c"],
    ["NULs at its end", { "r.example": auth("a:b\0\0") }, "r.example/x", "a:b"],
    ["base64 without padding", { "r.example": { auth: basic("ab:cde").replace(/=+$/, "") } }, "r.example/x", "ab:cde"],
    ["unicode", { "r.example": auth("jö:pä") }, "r.example/x", "jö:pä"],
  ])("%s", async (_, auths, name, wanted) => {
    await using world = await makeWorld({ ".docker/config.json": config(auths) });
    expect(shown(await world.find(name))).toBe(wanted);
  });

  test.each([
    ["no base64", { auth: "s3cret!" }, "auth is not base64"],
    ["no colon", auth("s3cret"), "auth is not base64 of USER:PASSWORD"],
    ["no user", auth(":s3cret"), "auth is not base64 of USER:PASSWORD"],
    ["another type", { auth: 1 }, "auth is not a string"],
    ["no object", "s3cret", "it is not an object"],
  ])("refuses an entry with %s, and only where it is needed", async (_, entry, why) => {
    await using world = await makeWorld({
      ".docker/config.json": config({ "bad.example": entry, "r.example": auth("a:1") }),
    });
    expect(shown(await world.find("r.example/x"))).toBe("a:1");
    const { message } = await failureOf(world.find("bad.example/x"));
    expect(message).toBe(`Cannot read the auths entry "bad.example" in ${world.root}/.docker/config.json: ${why}`);
  });
});

/** Records its arguments and stdin, and runs `script` with stdin in $q. */
const helper = (script: string): string => `#!/bin/sh\nq=$(cat)\necho "$1 $q" >> $ROOT/calls\n${script}\n`;
const answer = (username: string, secret: string): string =>
  helper(`printf '{"ServerURL":"%s","Username":"${username}","Secret":"${secret}"}' "$q"`);

describe("createKeychain(): credential helpers", () => {
  const one = (more: Record<string, unknown>, auths: Record<string, unknown> = {}): string => config(auths, more);
  const programs = {
    "bin/docker-credential-store": answer("store", "s3cret"),
    "bin/docker-credential-one": answer("one", "s3cret"),
  };
  const calls = async (world: World): Promise<string> => Bun.file(join(world.root, "calls")).text();

  test.each<[string, string, string, string | undefined, string]>([
    [
      "the store is asked for the host",
      one({ credsStore: "store" }),
      "r.example:5000/x",
      "store:s3cret",
      "get r.example:5000\n",
    ],
    [
      "and for Docker Hub's URL",
      one({ credsStore: "store" }),
      "ubuntu",
      "store:s3cret",
      "get https://index.docker.io/v1/\n",
    ],
    [
      "a host's own helper first",
      one({ credsStore: "store", credHelpers: { "r.example": "one" } }),
      "r.example/x",
      "one:s3cret",
      "get r.example\n",
    ],
    [
      "by Docker Hub's other name too",
      one({ credHelpers: { "docker.io": "one" } }),
      "ubuntu",
      "one:s3cret",
      "get https://index.docker.io/v1/\n",
    ],
    [
      "for a namespace",
      one({ credHelpers: { "r.example/x": "one" } }),
      "r.example/x/y",
      "one:s3cret",
      "get r.example/x\n",
    ],
    [
      "before an entry in auths",
      one({ credsStore: "store" }, { "r.example": auth("left:over") }),
      "r.example/x",
      "store:s3cret",
      "get r.example\n",
    ],
  ])("%s", async (_, file, name, wanted, asked) => {
    await using world = await makeWorld({ ".docker/config.json": file, ...programs });
    expect({ found: shown(await world.find(name)), asked: await calls(world) }).toEqual({ found: wanted, asked });
  });

  test("is asked once per host, by however many repositories at once", async () => {
    await using world = await makeWorld({ ".docker/config.json": one({ credsStore: "store" }), ...programs });
    await Promise.all(["r.example/a", "r.example/b", "r.example/c/d", "r.example/a"].map((name) => world.find(name)));
    expect(await calls(world)).toBe("get r.example\n");
  });

  test("<token> makes it an identity token", async () => {
    await using world = await makeWorld({
      ".docker/config.json": one({ credsStore: "t" }),
      "bin/docker-credential-t": answer("<token>", "refresh"),
    });
    expect(shown(await world.find("r.example/x"))).toBe("identity:refresh");
  });

  test("credentials not found are no credentials", async () => {
    await using world = await makeWorld({
      ".docker/config.json": one({ credsStore: "t" }),
      "bin/docker-credential-t": helper("echo credentials not found in native keychain; exit 1"),
    });
    expect(await world.find("r.example/x")).toBeUndefined();
  });

  const source = "docker-credential-t (credsStore in $ROOT/.docker/config.json)";
  test.each<[string, string, string]>([
    ["fails", helper("echo s3cret-canary; echo s3cret-canary >&2; exit 3"), "exit code 3"],
    [
      "says why by the protocol",
      helper("echo no credentials username; exit 1"),
      "exit code 1 (no credentials username)",
    ],
    ["answers no JSON", helper("echo s3cret-canary"), "its output is not the JSON of a credential helper"],
    [
      "answers other JSON",
      helper(`echo '{"secret":"s3cret-canary"}'`),
      "its output is not the JSON of a credential helper",
    ],
  ])("shows no output of a helper that %s", async (_, program, why) => {
    await using world = await makeWorld({
      ".docker/config.json": one({ credsStore: "t" }),
      "bin/docker-credential-t": program,
    });
    const { hint, message } = await failureOf(world.find("r.example/x"));
    expect({ message, hint, leak: [message, ...world.said].join("\n").includes("s3cret-canary") }).toEqual({
      message: `Cannot get credentials for "r.example" from ${source.replace("$ROOT", world.root)}: ${why}`,
      hint: "To see its output: echo r.example | docker-credential-t get",
      leak: false,
    });
  });

  test("a helper that hangs is ended and named", async () => {
    await using world = await makeWorld(
      { ".docker/config.json": one({ credsStore: "t" }), "bin/docker-credential-t": helper("exec sleep 60") },
      {},
      200,
    );
    const { message } = await failureOf(world.find("r.example/x"));
    expect(message).toBe(
      `Cannot get credentials for "r.example" from ${source.replace("$ROOT", world.root)}: ` +
        `Cannot run ${world.root}/bin/docker-credential-t: no answer within 0.2 s`,
    );
  });

  test("a helper that has hung is not run again for other hosts", async () => {
    await using world = await makeWorld(
      { ".docker/config.json": one({ credsStore: "t" }), "bin/docker-credential-t": helper("exec sleep 60") },
      {},
      200,
    );
    await failureOf(world.find("r.example/x"));
    const started = performance.now();
    const messages = await Promise.all(
      ["s.example/x", "t.example/y"].map(async (name) => (await failureOf(world.find(name))).message),
    );
    expect(performance.now() - started).toBeLessThan(200);
    expect(messages.map((message) => message.replace(/^.*config\.json\): /, ""))).toEqual([
      "docker-credential-t did not answer before, within 0.2 s",
      "docker-credential-t did not answer before, within 0.2 s",
    ]);
  });

  test("a missing helper is an error for a host that it is configured for", async () => {
    await using world = await makeWorld({ ".docker/config.json": one({ credHelpers: { "r.example": "gone" } }) });
    expect((await failureOf(world.find("r.example/x"))).message).toBe(
      `Cannot get credentials for "r.example" from docker-credential-gone (credHelpers["r.example"] in ${world.root}/.docker/config.json): the program is not on PATH`,
    );
  });

  test("a missing store is an error only for hosts with an entry in auths", async () => {
    await using world = await makeWorld({ ".docker/config.json": one({ credsStore: "desktop" }, { "r.example": {} }) });
    const why = `docker-credential-desktop (credsStore in ${world.root}/.docker/config.json) is not on PATH`;
    expect({ found: await world.find("public.example/x"), why: world.explain("public.example/x") }).toEqual({
      found: undefined,
      why: [why],
    });
    expect((await failureOf(world.find("r.example/x"))).message).toContain("the program is not on PATH");
  });

  test("is never taken from the current folder or by a path", async () => {
    await using world = await makeWorld(
      {
        ".docker/config.json": one({ credHelpers: { "a.example": "evil", "b.example": "../evil" } }),
        "docker-credential-evil": answer("a", "b"),
      },
      { PATH: ".:bin::/usr/bin" },
    );
    expect((await failureOf(world.find("a.example/x"))).message).toContain("the program is not on PATH");
    expect((await failureOf(world.find("b.example/x"))).message).toContain("is not a plain file name");
  });
});

describe("createKeychain(): GITHUB_TOKEN", () => {
  const files = { ".docker/config.json": config({ "ghcr.io": auth("joe:file") }) };
  test.each<[string, Record<string, string>, Record<string, string>, string, string | undefined]>([
    ["is for ghcr.io", {}, { GITHUB_TOKEN: "s3cret", GITHUB_ACTOR: "joe" }, "ghcr.io/joe/app", "joe:s3cret"],
    ["needs no user", {}, { GITHUB_TOKEN: " s3cret\n" }, "ghcr.io/joe/app", "unset:s3cret"],
    ["is for no other host", {}, { GITHUB_TOKEN: "s3cret" }, "ghcr.io.evil.example/app", undefined],
    ["comes after the file", files, { GITHUB_TOKEN: "s3cret" }, "ghcr.io/joe/app", "joe:file"],
  ])("%s", async (_, tree, env, name, wanted) => {
    await using world = await makeWorld(tree, env);
    expect(shown(await world.find(name))).toBe(wanted);
  });

  test("is named where it is missing", async () => {
    await using world = await makeWorld({});
    await world.find("ghcr.io/joe/app");
    expect(world.explain("ghcr.io/joe/app")).toEqual([
      "there is none for ghcr.io, and there is no configuration file of Docker or podman",
      "GITHUB_TOKEN is not set",
    ]);
  });
});

describe("createKeychain(): the reasons", () => {
  test("name the file that was read", async () => {
    await using world = await makeWorld({ ".docker/config.json": config({}) }, { DOCKER_AUTH_CONFIG: config({}) });
    await world.find("r.example/app");
    expect(world.explain("r.example/app")).toEqual([
      `there is none for r.example in DOCKER_AUTH_CONFIG and ${world.root}/.docker/config.json`,
    ]);
  });

  test("name the helper that was asked", async () => {
    await using world = await makeWorld({
      ".docker/config.json": config({}, { credsStore: "t" }),
      "bin/docker-credential-t": helper("echo credentials not found in native keychain; exit 1"),
    });
    await world.find("r.example/app");
    expect(world.explain("r.example/app")).toEqual([
      `docker-credential-t (credsStore in ${world.root}/.docker/config.json) has none for r.example`,
    ]);
  });
});

describe("chainKeychains()", () => {
  const repository = parseRepository("r.example/x");
  const found: FoundCredential = { credential: { kind: "bearer", token: "t" }, source: "second" };

  test("takes the first credential and gives all reasons", async () => {
    const chain = chainKeychains([
      { find: async () => undefined, explain: () => ["first has none"] },
      { find: async () => found },
      { find: () => Promise.reject(new Error("not asked")) },
    ]);
    expect({ found: await chain.find(repository), why: chain.explain?.(repository) }).toEqual({
      found,
      why: ["first has none"],
    });
  });

  test("a failure is a warning and a reason for a pull, which goes on", async () => {
    const warnings: string[] = [];
    const log: Log = { info: () => {}, warn: (message) => void warnings.push(message), debug: () => {} };
    const broken = { find: () => Promise.reject(new KoError("broken")) };
    const chain = chainKeychains([broken, { find: async () => found }], log);
    for (const _ of [1, 2]) expect(await chain.find(repository, { effort: "all", push: false })).toEqual(found);
    expect({ warnings, why: chain.explain?.(repository) }).toEqual({ warnings: ["broken"], why: ["broken"] });
  });

  test("an error ends the search", async () => {
    const chain = chainKeychains([{ find: () => Promise.reject(new Error("broken")) }, { find: async () => found }]);
    expect(await rejectionOf(chain.find(repository))).toEqual(new Error("broken"));
  });
});
