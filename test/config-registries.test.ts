import { describe, expect, test } from "bun:test";
import { formatRegistry, mirrorsOf } from "../lib/config-registries.ts";
import { loadConfig } from "../lib/config.ts";
import { describeError } from "../lib/errors.ts";
import { formatRepository, parseRepository } from "../lib/reference.ts";
import { type Files, writeTree } from "./helpers/world-folders.ts";

/** The registries of a run as texts, or the mistakes. The folder is shown as `$ROOT`. */
async function load(files: Files, env: Readonly<Record<string, string>> = {}): Promise<unknown> {
  using tree = writeTree(files);
  const hide = (text: string): string => text.replaceAll(tree.path, "$ROOT");
  const variables = Object.fromEntries(
    Object.entries(env).map(([name, value]) => [name, value.replace("$ROOT", tree.path)]),
  );
  try {
    const { registries, warnings } = await loadConfig({ env: variables, cwd: tree.at("app") });
    const found = Array.from(registries, ([host, settings]) => [host, hide(formatRegistry(settings))]);
    return { ...Object.fromEntries(found), ...(warnings.length === 0 ? {} : { warnings: warnings.map(hide) }) };
  } catch (error) {
    return hide(describeError(error).trimEnd());
  }
}

describe("registries:", () => {
  test.each<[string, string, unknown]>([
    ["nothing", "registries:\n", {}],
    ["a registry without settings", "registries: {r.lan: }\n", { "r.lan": "nothing set" }],
    ["plain http", "registries: {'r.lan:5000': {http: true}}\n", { "r.lan:5000": "over http only" }],
    ["no checks", "registries: {r.lan: {insecure: yes, http: false}}\n", expect.stringContaining("true or false")],
    ["no checks, as YAML 1.2", "registries: {r.lan: {insecure: true}}\n", { "r.lan": "without TLS checks" }],
    ["a CA beside the file", "registries: {r.lan: {ca: ca.pem}}\n", { "r.lan": "ca $ROOT/app/ca.pem" }],
    ["an absolute CA", "registries: {r.lan: {ca: /etc/ca.pem}}\n", { "r.lan": "ca /etc/ca.pem" }],
    [
      "mirrors of Docker Hub, under each of its names",
      "registries: {docker.io: {mirrors: [mirror.gcr.io, r.lan:5000/hub/]}}\n",
      { "index.docker.io": "mirrors mirror.gcr.io, r.lan:5000/hub" },
    ],
    [
      "Docker Hub twice",
      "registries: {docker.io: {}, index.docker.io: {}}\n",
      'Error: Cannot read .ko.yaml:1:29: "index.docker.io" is already set at .ko.yaml:1:14',
    ],
    [
      "a URL as host",
      "registries:\n  https://r.lan: {}\n",
      'Error: Cannot use .ko.yaml:2:3: "https://r.lan" is not a host name with an optional port\n' +
        "  Write it as in image names: registry.example.com:5000",
    ],
    [
      "a URL as mirror",
      "registries:\n  r.lan:\n    mirrors: [https://m.lan/a/]\n",
      'Error: Cannot use .ko.yaml:3:15: "https://m.lan/a/" is a URL, wanted HOST or HOST/PATH, such as m.lan/a',
    ],
    [
      "a CA for plain http",
      "registries:\n  r.lan: {http: true, ca: ca.pem}\n",
      "Error: Cannot use .ko.yaml:2:27: ca has no use with http: true, which uses no certificate",
    ],
    [
      "a slip",
      "registries: {r.lan: {mirror: m.lan}}\n",
      'Error: Cannot use .ko.yaml:1:22: "mirror" is not a key of a registry, the nearest is "mirrors"',
    ],
    [
      "a password",
      "registries: {r.lan: {password: x}}\n",
      {
        "r.lan": "nothing set",
        warnings: [
          '.ko.yaml:1:22: "password" has no effect, it is not a key of a registry; use ko login, which keeps passwords out of this file',
        ],
      },
    ],
  ])("reads %s", async (_, yaml, wanted) => {
    expect(await load({ "app/.ko.yaml": yaml })).toEqual(wanted);
  });

  test("the user's entry for a host counts instead of the project's", async () => {
    const files = {
      "app/.ko.yaml": "registries: {a.lan: {http: true}, b.lan: {http: true}}\n",
      "home/.config/ko/registries.yaml": "b.lan: {ca: b.pem}\nc.lan: {insecure: true}\n",
      "other/ko/registries.yaml": "d.lan: {}\n",
    };
    const own = { "b.lan": "ca $ROOT/home/.config/ko/b.pem", "c.lan": "without TLS checks" };
    expect(await load(files, { HOME: "$ROOT/home" })).toEqual({ "a.lan": "over http only", ...own });
    expect(await load(files, { HOME: "$ROOT/home", XDG_CONFIG_HOME: "$ROOT/other" })).toEqual({
      "a.lan": "over http only",
      "b.lan": "over http only",
      "d.lan": "nothing set",
    });
  });

  test("a mistake in the user's file names that file", async () => {
    const files = { "app/main.go": "", "home/.config/ko/registries.yaml": "b.lan: {http: 1}\n" };
    expect(await load(files, { HOME: "$ROOT/home" })).toBe(
      'Error: Cannot read $ROOT/home/.config/ko/registries.yaml:1:15: http of the file["b.lan"] is a number, wanted true or false',
    );
  });
});

describe("mirrorsOf()", () => {
  test("keeps the order, and puts the path of a mirror before that of the repository", async () => {
    using tree = writeTree({ ".ko.yaml": "registries: {docker.io: {mirrors: [a.lan, b.lan/hub]}}\n" });
    const { registries } = await loadConfig({ env: {}, cwd: tree.path });
    const list = (name: string): readonly string[] =>
      mirrorsOf(registries, parseRepository(name)).map(formatRepository);
    expect(list("alpine")).toEqual(["a.lan/library/alpine", "b.lan/hub/library/alpine"]);
    expect(list("gcr.io/distroless/static")).toEqual([]);
  });
});
