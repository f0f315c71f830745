import { describe, expect, test } from "bun:test";
import { IMAGE_KEYS, type ImageKey, type ImageWords, readImageFlag } from "../lib/config-image.ts";
import { loadConfig } from "../lib/config.ts";
import { describeError } from "../lib/errors.ts";
import { writeTree } from "./helpers/world-folders.ts";

/** The settings of a file as texts, or its mistakes. */
async function load(yaml: string): Promise<unknown> {
  using tree = writeTree({ ".ko.yaml": yaml });
  try {
    const { builds, image, warnings } = await loadConfig({ env: {}, cwd: tree.path });
    const entry = builds[0]?.image;
    return {
      ...show(image),
      ...(entry === undefined ? {} : { entry: show(entry) }),
      ...(warnings.length === 0 ? {} : { warnings }),
    };
  } catch (error) {
    return describeError(error).trimEnd();
  }
}

function show(words: ImageWords): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(words).map(([key, all]) => [
      key,
      all.map((word) => (word.key === undefined ? word.value : `${word.key}=${word.value}`)),
    ]),
  );
}

describe("image:", () => {
  test.each<[string, string, unknown]>([
    ["nothing", "image:\n", {}],
    ["an empty map", "image: {}\n", {}],
    ["null", "image: {env: , ports: ~}\n", {}],
    ["variables as a map", "image:\n  env: {A: b, B: 1, C: '', D: a=b}\n", { env: ["A=b", "B=1", "C=", "D=a=b"] }],
    [
      "variables as a list",
      "image:\n  env: [A=b, B=, 'C={{.Git.Tag}}=x']\n",
      { env: ["A=b", "B=", "C={{.Git.Tag}}=x"] },
    ],
    [
      "ports",
      "image: {ports: [80, 81/tcp, 53/udp, 9/sctp, 0080]}\n",
      { ports: ["80/tcp", "81/tcp", "53/udp", "9/sctp", "80/tcp"] },
    ],
    ["one port", "image: {ports: 8080}\n", { ports: ["8080/tcp"] }],
    [
      "paths",
      "image: {workdir: /a//b/./c/, volumes: ['/', 'C:\\x', /d]}\n",
      { workdir: ["/a/b/c"], volumes: ["/", "C:\\x", "/d"] },
    ],
    [
      "words",
      "image: {cmd: [a, '', 1, a b], entrypointArgs: []}\n",
      { cmd: ["a", "", "1", "a b"], entrypointArgs: [] },
    ],
    ["users", "image: {user: 1000:1000}\n", { user: ["1000:1000"] }],
    ["a number as user", "image: {user: 65532}\n", { user: ["65532"] }],
    ["signals", "image: {stopSignal: SIGRTMIN+3}\n", { stopSignal: ["SIGRTMIN+3"] }],
    ["a number as signal", "image: {stopSignal: 2}\n", { stopSignal: ["2"] }],
    [
      "labels and annotations",
      "image: {labels: {a.b/c: d}, annotations: [x=y]}\n",
      { labels: ["a.b/c=d"], annotations: ["x=y"] },
    ],
    [
      "templates, unchecked",
      "image: {ports: ['{{.Env.P}}'], user: '{{.Env.U}}'}\n",
      { ports: ["{{.Env.P}}"], user: ["{{.Env.U}}"] },
    ],
    ["any case", "Image: {WorkDir: /x, STOPSIGNAL: SIGINT}\n", { workdir: ["/x"], stopSignal: ["SIGINT"] }],
    ["an entry", "image: {user: 1}\nbuilds:\n- image: {user: 2, x-mine: 1}\n", { user: ["1"], entry: { user: ["2"] } }],
    ["anchors", "x-a: &a {A: 1}\nimage:\n  env: {<<: *a, B: 2}\n", { env: ["B=2", "A=1"] }],
    [
      "an unknown key",
      "image: {shell: x, entrypoint: [a]}\n",
      {
        warnings: [
          '.ko.yaml:1:9: "shell" has no effect, it is not a key of image',
          '.ko.yaml:1:19: "entrypoint" has no effect, it is not a key of image; use entrypointArgs; ko sets the program as entrypoint',
        ],
      },
    ],
  ])("reads %s", async (_, yaml, expected) => {
    expect(await load(yaml)).toEqual(expected);
  });

  test.each<[string, string]>([
    [
      "image: 7\n",
      "Cannot read .ko.yaml:1:8: image is a number, wanted a map of env, workdir, user, ports, volumes, cmd, labels, annotations, stopSignal and entrypointArgs",
    ],
    [
      "builds:\n- image: web\n",
      "Cannot read .ko.yaml:2:10: image of builds[0] is a string, wanted a map of env, workdir, user, ports, volumes, cmd, labels, annotations, stopSignal and entrypointArgs",
    ],
    ["image:\n  port: [80]\n", 'Cannot use .ko.yaml:2:3: "port" is not a key of image, the nearest is "ports"'],
    ["image:\n  workdri: /x\n", 'Cannot use .ko.yaml:2:3: "workdri" is not a key of image, the nearest is "workdir"'],
    [
      "image:\n  ports: [80, 70000]\n",
      'Cannot use ports of image at .ko.yaml:2:15: "70000" is not a port, wanted 1 to 65535',
    ],
    ["image:\n  ports: [0]\n", 'Cannot use ports of image at .ko.yaml:2:11: "0" is not a port, wanted 1 to 65535'],
    [
      "image:\n  ports: [8000-8010]\n",
      'Cannot use ports of image at .ko.yaml:2:11: "8000-8010" is not a port, wanted a port such as 8080, 8080/tcp or 53/udp',
    ],
    [
      "image:\n  ports: [80/tpc]\n",
      'Cannot use ports of image at .ko.yaml:2:11: "tpc" is not a protocol, the nearest is "tcp"',
    ],
    [
      "image:\n  ports: [80/TCP]\n",
      'Cannot use ports of image at .ko.yaml:2:11: "TCP" is not a protocol, the nearest is "tcp"',
    ],
    [
      "image:\n  workdir: app\n",
      'Cannot use workdir of image at .ko.yaml:2:12: "app" is not an absolute path, wanted one such as /data',
    ],
    [
      "image:\n  volumes: [/a/../b]\n",
      'Cannot use volumes of image at .ko.yaml:2:13: "/a/../b" has "..", wanted a path without',
    ],
    [
      "image:\n  stopSignal: TERM\n",
      'Cannot use stopSignal of image at .ko.yaml:2:15: "TERM" is not a signal, the nearest is "SIGTERM"',
    ],
    [
      "image:\n  stopSignal: sigint\n",
      'Cannot use stopSignal of image at .ko.yaml:2:15: "sigint" is not a signal, the nearest is "SIGINT"',
    ],
    [
      "image:\n  stopSignal: 65\n",
      'Cannot use stopSignal of image at .ko.yaml:2:15: "65" is not a signal, wanted one such as SIGTERM or SIGINT',
    ],
    [
      "image:\n  user: ''\n",
      'Cannot use user of image at .ko.yaml:2:9: "" is not a user, wanted USER or USER:GROUP, names or numbers',
    ],
    [
      "image:\n  user: a:b:c\n",
      'Cannot use user of image at .ko.yaml:2:9: "a:b:c" is not a user, wanted USER or USER:GROUP, names or numbers',
    ],
    ["image:\n  user: [a]\n", "Cannot read .ko.yaml:2:9: user of image is a list, wanted a string"],
    ["image:\n  cmd: serve --now\n", "Cannot read .ko.yaml:2:8: cmd of image is a string, wanted a list of strings"],
    ["image:\n  cmd: [true]\n", "Cannot read .ko.yaml:2:9: an item of cmd of image is a boolean, wanted a string"],
    [
      "image:\n  env: A=b\n",
      "Cannot read .ko.yaml:2:8: env of image is a string, wanted a map of strings, or a list of KEY=VALUE",
    ],
    ["image:\n  env: [A]\n", 'Cannot use env of image at .ko.yaml:2:9: there is no "=", wanted KEY=VALUE'],
    ["image:\n  env: {A: }\n", 'Cannot read .ko.yaml:2:12: "A" in env of image is empty, wanted a string'],
    ["image:\n  env: [A=1, A=2]\n", 'Cannot use env of image at .ko.yaml:2:14: "A" is already set at .ko.yaml:2:9'],
    [
      "image:\n  env: {KO_DATA_PATH: /x}\n",
      "Cannot use env of image at .ko.yaml:2:23: KO_DATA_PATH is set by ko, which puts kodata there",
    ],
    [
      "image:\n  env: ['{{.Env.A}}=1']\n",
      'Cannot use env of image at .ko.yaml:2:9: the key "{{.Env.A}}" is a template, wanted one in the value only',
    ],
    ["image:\n  env: {A B: c}\n", 'Cannot use env of image at .ko.yaml:2:14: "A B" is not the name of a variable'],
    ["image:\n  labels: [=a]\n", "Cannot use labels of image at .ko.yaml:2:12: the key is empty, wanted KEY=VALUE"],
    [
      "builds:\n- main: .\n  image:\n    ports: [x, y]\n",
      [
        'Cannot use ports of image of builds[0] at .ko.yaml:4:13: "x" is not a port, wanted a port such as 8080, 8080/tcp or 53/udp',
        'Error: Cannot use ports of image of builds[0] at .ko.yaml:4:16: "y" is not a port, wanted a port such as 8080, 8080/tcp or 53/udp',
      ].join("\n"),
    ],
  ])("refuses %j", async (yaml, message) => {
    expect(String(await load(yaml)).replace(/\n {2}[^\n]*$/, "")).toBe(`Error: ${message}`);
  });

  test("never shows the value of a variable in an error", async () => {
    for (const yaml of ['image: {env: ["A=1", "A=geheim"]}', 'image: {env: {A: "geheim\\0"}}']) {
      expect(await load(yaml)).not.toContain("geheim");
    }
  });
});

describe("readImageFlag()", () => {
  test.each<[ImageKey, readonly string[], readonly string[]]>([
    ["env", ["A=b,c", "A=d"], ["A=d"]],
    ["cmd", [""], []],
    ["cmd", ["a", ""], ["a", ""]],
    ["ports", ["80"], ["80/tcp"]],
  ])("reads %s %j", (key, texts, expected) => {
    const found = readImageFlag(key, "--f", texts);
    expect(found.map((word) => (word.key === undefined ? word.value : `${word.key}=${word.value}`))).toEqual([
      ...expected,
    ]);
  });

  test.each(IMAGE_KEYS.filter((key) => !["cmd", "entrypointArgs"].includes(key)))("refuses a bad %s", (key) => {
    expect(() => readImageFlag(key, "--f", ["\0", "x y"])).toThrow("Cannot use --f: ");
  });
});
