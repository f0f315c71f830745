import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { Ajv2020 } from "ajv/dist/2020.js";
import { parseAllDocuments } from "yaml";
import { ENTRY_KEYS } from "../lib/config-builds.ts";
import { CAPABILITY_NAMES } from "../lib/config-capabilities.ts";
import { IMAGE_KEYS } from "../lib/config-image.ts";
import { REGISTRY_KEYS } from "../lib/config-registries.ts";
import { KEYS, loadConfig } from "../lib/config.ts";
import { KoError } from "../lib/errors.ts";
import { formatSchema } from "../lib/settings-schema.ts";
import { writeTree } from "./helpers/world-folders.ts";
import { BUILD_CASES } from "./parity/builds.ts";
import { CONFIGURATION_CASES } from "./parity/configurations.ts";

interface Schema {
  readonly properties: Readonly<Record<string, unknown>>;
  readonly $defs: {
    readonly build: { readonly properties: Readonly<Record<string, unknown>> };
    readonly registry: { readonly properties: Readonly<Record<string, unknown>> };
    readonly settings: { readonly properties: Readonly<Record<string, unknown>> };
    readonly capability: { readonly anyOf: readonly [{ readonly enum: readonly string[] }] };
  };
}

const text = readFileSync(`${import.meta.dir}/../docs/schemas/ko.v1.json`, "utf8");
const schema: Schema = JSON.parse(text);
const fits = new Ajv2020({ allowUnionTypes: true, strictTypes: false }).compile(JSON.parse(text));

/** Whether ko takes a file, and has nothing to say about it. */
async function isTaken(yaml: string): Promise<boolean> {
  using tree = writeTree({ ".ko.yaml": yaml });
  try {
    return (await loadConfig({ env: {}, cwd: tree.path })).warnings.length === 0;
  } catch (error) {
    if (!(error instanceof KoError)) throw error;
    return false;
  }
}

function validates(yaml: string): boolean {
  const documents = parseAllDocuments(yaml, { merge: true });
  const [first] = Array.isArray(documents) ? documents : [];
  return fits(first?.toJS() ?? null);
}

const GOOD: readonly string[] = [
  "",
  "# nothing\n",
  "defaultBaseImage: alpine:3\n",
  "defaultBaseImage:\n",
  "defaultBaseImage: ko.builtin/static\n",
  "defaultBaseImage: scratch\n",
  "defaultBaseImage: oci:dir:v1\n",
  "defaultBaseImage: oci:/d\n",
  "defaultBaseImage: localhost:5000/a/b@sha256:" + "0".repeat(64) + "\n",
  "baseImageOverrides:\n",
  "baseImageOverrides:\n  example.com/A/b: alpine\n  ko://b.io/c: scratch\n",
  "defaultPlatforms: all\n",
  "defaultPlatforms: [all]\n",
  "defaultPlatforms: cluster\n",
  "defaultPlatforms: [cluster]\n",
  "defaultPlatforms: [clusters]\n",
  "defaultPlatforms: []\n",
  "defaultPlatforms: linux/amd64,linux/arm64 linux/s390x\n",
  "defaultPlatforms: [linux, linux/arm/v7, 'windows/amd64:10.0.20348']\n",
  "defaultEnv: [A=1, B=]\n",
  "defaultEnv: A=1 B=2\n",
  "defaultEnv: ''\n",
  "defaultFlags: -v  -tags a\n",
  "defaultFlags: [-p, 1]\n",
  "defaultLdflags: []\n",
  "defaultLdflags: -s -w\n",
  "builds:\n",
  "builds: []\n",
  "builds: {main: ./a}\n",
  "builds:\n- id: 7\n  dir: .\n  main: 1\n",
  "builds:\n- id:\n  env:\n  flags:\n  ldflags:\n  linux_capabilities:\n",
  "builds:\n- env: A=1 B=2\n  flags: ''\n  ldflags: ''\n",
  "builds:\n- linux_capabilities: [net_raw, CAP_CHOWN, cap_kill, 40, all]\n",
  "builds:\n- linux_capabilities: net_raw,net_admin=eip chown+p =\n",
  "builds:\n- linux_capabilities: [NET_RAW=ep, all-e]\n",
  "image:\n",
  "image: {env: {A: b, B: 1, C: '{{.Git.Tag}}'}, labels: {a.b/c: ''}, annotations: [a=b=c]}\n",
  "image: {env: [A=b, 'B={{.Env.X}}']}\n",
  "image: {workdir: /a, volumes: [/, 'C:\\x'], user: '1:2'}\n",
  "image: {workdir: '{{.Env.X}}', volumes: '/{{.Env.X}}', user: nobody}\n",
  "image: {ports: [80, 53/udp, '{{.Env.X}}', 65535, 09/sctp], user: 0}\n",
  "image: {ports: 8080, volumes: /d, cmd: [], entrypointArgs: [a, 1, '']}\n",
  "image: {stopSignal: SIGRTMIN+3}\nbuilds:\n- image: {stopSignal: 9, x-a: 1}\n- main: ./b\n  image:\n",
  "builds:\n- binary: /manager\n- main: ./b\n  binary: /usr/local/bin/b.c\n- main: ./c\n  binary:\n",
  "repo: registry.lan:5000/team\nnaming: base-import-paths\nsbom: none\n",
  "repo: localhost:5000/\nnaming:\nsbom: spdx\n",
  "profiles:\n",
  "profiles: {dev: {repo: kind.local, naming: bare}, release: }\n",
  "cache:\n",
  "cache: {reuse: code, x-a: 1}\n",
  "cache: {reuse: }\n",
  "registries:\n",
  "registries: {registry.lan: , 'r.lan:5000': {}, docker.io: {mirrors: mirror.gcr.io}}\n",
  "registries:\n  '[::1]:5000': {http: true, insecure: false, ca: }\n  r.lan: {ca: ca.pem, mirrors: [m.lan:5000/hub/x, n.lan/], x-a: 1}\n",
  "x-any: {a: [1]}\nX-more: 1\nbuilds:\n- x-own: 1\n  main: .\n",
  "x-base: &b {main: ./a}\nbuilds:\n- <<: *b\n  id: a\n",
];

const BAD: readonly string[] = [
  "repo: https://registry.lan/team\n",
  "repo: registry.lan/Team\n",
  "repo: me:secret@registry.lan/team\n",
  "repo: ''\n",
  "repo: 7\n",
  "naming: base\n",
  "naming: [bare]\n",
  "sbom: cyclonedx\n",
  "profiles: [dev]\n",
  "profiles: {dev: bare}\n",
  "cache: code\n",
  "cache: {reuse: cod}\n",
  "cache: {reuse: true}\n",
  "cache: {dir: /x}\n",
  "registries: [r.lan]\n",
  "registries: {https://r.lan: {}}\n",
  "registries: {r.lan/app: {}}\n",
  "registries: {r.lan: true}\n",
  "registries: {r.lan: {http: 'yes'}}\n",
  "registries: {r.lan: {insecure: 1}}\n",
  "registries: {r.lan: {ca: ''}}\n",
  "registries: {r.lan: {ca: [a]}}\n",
  "registries: {r.lan: {http: true, ca: a}}\n",
  "registries: {r.lan: {mirrors: {a: b}}}\n",
  "registries: {r.lan: {mirrors: [https://m.lan]}}\n",
  "registries: {r.lan: {mirrors: [m.lan/Hub]}}\n",
  "registries: {r.lan: {mirrors: [m.lan//a]}}\n",
  "registries: {r.lan: {mirrors: ['']}}\n",
  "registries: {r.lan: {mirror: m.lan}}\n",
  "registries: {r.lan: {password: x}}\n",
  "image: web\n",
  "image: {env: A=b}\n",
  "image: {env: [A]}\n",
  "image: {env: ['=b']}\n",
  "image: {env: {KO_DATA_PATH: /x}}\n",
  "image: {env: [KO_DATA_PATH=/x]}\n",
  "image: {env: {A: }}\n",
  "image: {env: {A B: c}}\n",
  "image: {env: {A: true}}\n",
  "image: {workdir: x}\n",
  "image: {workdir: ''}\n",
  "image: {workdir: 7}\n",
  "image: {user: ''}\n",
  "image: {user: 'a b'}\n",
  "image: {user: 'a:b:c'}\n",
  "image: {ports: [0]}\n",
  "image: {ports: [65536]}\n",
  "image: {ports: [80/tpc]}\n",
  "image: {ports: 8000-8010}\n",
  "image: {volumes: [a]}\n",
  "image: {volumes: [/a/../b]}\n",
  "image: {cmd: a}\n",
  "image: {cmd: [null]}\n",
  "image: {labels: a}\n",
  "image: {labels: {'': a}}\n",
  "image: {annotations: ['{{.Env.A}}=b']}\n",
  "image: {stopSignal: TERM}\n",
  "image: {stopSignal: 65}\n",
  "image: {entrypointArgs: {}}\n",
  "image: {port: 80}\n",
  "image: {shell: [a]}\n",
  "builds:\n- image: web\n",
  "- a\n",
  "text\n",
  "defaultBaseImage: 7\n",
  "defaultBaseImage: ''\n",
  "defaultBaseImage: a b\n",
  "defaultBaseImage: Alpine\n",
  "defaultBaseImage: ko.builtin/other\n",
  "defaultBaseImage: 'oci:'\n",
  "defaultBaseImage: [alpine]\n",
  "baseImageOverrides: alpine\n",
  "baseImageOverrides:\n  a.io/a:\n",
  "baseImageOverrides:\n  ./cmd/a: alpine\n",
  "baseImageOverrides:\n  a.io/a: 7\n",
  "defaultPlatforms: 7\n",
  "defaultPlatforms: {a: b}\n",
  "defaultPlatforms: [all, linux/amd64]\n",
  "defaultPlatforms: all,linux/amd64\n",
  "defaultPlatforms: [cluster, linux/amd64]\n",
  "defaultPlatforms: linux/amd64 cluster\n",
  "defaultPlatforms: [linux/a/b/c]\n",
  "defaultPlatforms: ['linux/amd64,linux/arm64']\n",
  "defaultPlatforms: [7]\n",
  "defaultEnv: [A]\n",
  "defaultEnv: A=1 B\n",
  "defaultEnv: {A: 1}\n",
  "defaultFlags: 7\n",
  "defaultFlags: [true]\n",
  "defaultLdflags: {}\n",
  "builds: 7\n",
  "builds: [a]\n",
  "builds: [null]\n",
  "builds:\n- main: [a]\n",
  "builds:\n- id: true\n",
  "builds:\n- env: [7]\n",
  "builds:\n- env: ''\n",
  "builds:\n- env: {A: 1}\n",
  "builds:\n- flags: 7\n",
  "builds:\n- ldflags: [[-s]]\n",
  "builds:\n- linux_capabilities: [net_rwa]\n",
  "builds:\n- linux_capabilities: 'net_raw=x'\n",
  "builds:\n- linux_capabilities: [64]\n",
  "builds:\n- linux_capabilities: net_raw,chown\n",
  "builds:\n- ldflag: -s\n",
  "builds:\n- binary: a\n",
  "builds:\n- binary: a/b\n",
  "builds:\n- binary: /a/../b\n",
  "builds:\n- binary: /a//b\n",
  "builds:\n- binary: /a/\n",
  "builds:\n- binary: /\n",
  "builds:\n- binary: /bin/a\n",
  "builds:\n- binary: /var/run/ko/a\n",
  "builds:\n- binary: /usr/bin\n",
  "builds:\n- binary: /ko-app/dlv.exe\n",
  "builds:\n- binary: '/{{.Env.A}}'\n",
  "builds:\n- binary: 7\n",
  "builds:\n- binary: [/a]\n",
  "defaultbaseimag: alpine\n",
  "ports: [80]\n",
];

/** Files that ko takes, and that the schema does not describe: it has one spelling of each key. */
const OTHER_SPELLINGS = ["keys in other cases"];

describe("the schema of .ko.yaml", () => {
  test("is the file of the documentation, and a schema", () => {
    const printed: unknown = JSON.parse(formatSchema());
    expect(printed).toEqual(JSON.parse(text));
    expect(new Ajv2020().validateSchema(JSON.parse(text))).toBe(true);
  });

  test("has the keys of the parser, and no other", () => {
    expect(Object.keys(schema.properties).sort()).toEqual([...KEYS].sort());
    expect(Object.keys(schema.$defs.build.properties).sort()).toEqual([...ENTRY_KEYS].sort());
    expect(Object.keys(schema.$defs.settings.properties)).toEqual([...IMAGE_KEYS]);
    expect(Object.keys(schema.$defs.registry.properties)).toEqual([...REGISTRY_KEYS]);
    expect([...schema.$defs.capability.anyOf[0].enum]).toEqual([...CAPABILITY_NAMES]);
  });

  test("describes every key", () => {
    const { build, registry, settings } = schema.$defs;
    const all = [schema, build, registry, settings].flatMap(({ properties }) => Object.entries(properties));
    expect(all.filter(([, value]) => !JSON.stringify(value).includes('"description":'))).toEqual([]);
  });

  test.each(GOOD.map((each) => [each]))("takes %j, as ko does", async (yaml) => {
    expect([await isTaken(yaml), validates(yaml), fits.errors]).toEqual([true, true, null]);
  });

  test.each(BAD.map((each) => [each]))("refuses %j, as ko does", async (yaml) => {
    expect([await isTaken(yaml), validates(yaml)]).toEqual([false, false]);
  });

  const bases = { reference: "registry.example.com/base:v1" };
  const shapes = [...BUILD_CASES, ...CONFIGURATION_CASES]
    .map(({ builds = "", config, name }): readonly [string, string] => [name, config === undefined ? builds : ""])
    .filter(([name, yaml]) => yaml !== "" && !OTHER_SPELLINGS.includes(name));

  test.each(shapes)("agrees with ko about a real file: %s", async (_, yaml) => {
    const file = `defaultBaseImage: ${bases.reference}\n${yaml}`;
    expect(validates(file)).toBe(await isTaken(file));
  });

  test("has enough real files, most of which are taken", () => {
    const taken = shapes.filter(([, yaml]) => validates(yaml));
    expect([shapes.length > 80, taken.length > 70]).toEqual([true, true]);
  });
});
