import { describe, expect, test } from "bun:test";
import { KoError } from "../lib/errors.ts";
import { encodeConfig, readConfig } from "../lib/oci-config.ts";
import { askGo, base64, listOf, textOf } from "./helpers/go-fixtures.ts";

const DIGEST = `sha256:${"0123456789abcdef".repeat(4)}` as const;
const OTHER = `sha256:${"f".repeat(64)}` as const;

const FULL_CONFIG = {
  architecture: "arm",
  author: "A <a@example.com>",
  container: "0123",
  container_config: { Cmd: ["dropped"] },
  created: "2024-05-06T07:08:09.120+05:30",
  docker_version: "20.10.7",
  history: [
    { created: "2024-05-06T07:08:09.100Z", created_by: "ADD <rootfs> & more", comment: "c", author: "a" },
    { created_by: "no time", empty_layer: true, unknown: 1 },
    { empty_layer: false },
    {},
  ],
  os: "linux",
  rootfs: { type: "layers", diff_ids: [DIGEST, OTHER], more: 1 },
  config: {
    AttachStderr: true,
    AttachStdin: true,
    AttachStdout: true,
    Cmd: ["sh", "-c", "", "a\u2028b"],
    Healthcheck: {
      Retries: 3,
      StartInterval: 5,
      StartPeriod: 4,
      Timeout: 2,
      Interval: 30_000_000_000,
      Test: ["CMD", "true"],
    },
    Domainname: "example.com",
    Entrypoint: ["/e"],
    Env: ["PATH=/bin", "A=", "B"],
    Hostname: "h",
    Image: "i",
    Labels: { b: "2", a: "1", "😀": "4", "\uffff": "3", "": "" },
    OnBuild: ["RUN x"],
    OpenStdin: true,
    StdinOnce: true,
    StopTimeout: 10,
    Tty: true,
    User: "1:1",
    Volumes: { "/b": {}, "/a": null, "/c": { x: 1 } },
    WorkingDir: "/w",
    ExposedPorts: { "80/tcp": {}, "53/udp": {} },
    ArgsEscaped: true,
    NetworkDisabled: true,
    MacAddress: "02:42:ac:11:00:02",
    StopSignal: "SIGQUIT",
    Shell: ["/bin/bash"],
  },
  "os.version": "1.2",
  variant: "v7",
  "os.features": ["f", "g"],
  "moby.buildkit.cache.v0": "e30=",
};

const ROOTFS = { type: "layers", diff_ids: [DIGEST] };
/** Configurations as JSON, which ko and go-containerregistry must read and write in the same way. */
const CONFIGS: readonly (readonly [string, string])[] = [
  ["all fields", JSON.stringify(FULL_CONFIG)],
  ["the least", JSON.stringify({ architecture: "amd64", os: "linux", rootfs: ROOTFS })],
  ["no platform", JSON.stringify({ rootfs: ROOTFS, config: {} })],
  [
    "null everywhere",
    JSON.stringify({
      architecture: null,
      os: null,
      created: null,
      history: null,
      config: null,
      variant: null,
      "os.features": null,
      rootfs: { type: null, diff_ids: [] },
    }),
  ],
  [
    "null in the container's part",
    JSON.stringify({
      rootfs: ROOTFS,
      config: { Cmd: null, Env: null, Labels: null, Volumes: null, Healthcheck: null, Tty: null, User: null },
    }),
  ],
  [
    "empty values",
    JSON.stringify({
      rootfs: ROOTFS,
      author: "",
      history: [],
      "os.features": [],
      config: { Cmd: [], Env: [], Labels: {}, Volumes: {}, ExposedPorts: {}, Tty: false, User: "", Healthcheck: {} },
    }),
  ],
  ["an empty healthcheck", JSON.stringify({ rootfs: ROOTFS, config: { Healthcheck: { Test: [], Interval: 0 } } })],
  [
    "keys that objects inherit",
    `{"rootfs":{"diff_ids":[],"__proto__":1},"__proto__":{"os":"plan9"},"config":{"__proto__":{"User":"0"},"Labels":{"__proto__":"x","constructor":"y"}}}`,
  ],
  ["a key twice", `{"os":"a","os":"b","rootfs":{"type":"layers","diff_ids":[]}}`],
  ["half a character, and bytes that are no UTF-8", `{"os":"\\ud800","author":"\xff","rootfs":{"diff_ids":[]}}`],
  ["blanks and line ends", `\r\n { "os" : "linux" ,\t"rootfs" : { "diff_ids" : [ ] } } \n`],
];

/** Configurations that both refuse. */
const BAD_CONFIGS: readonly (readonly [string, string, string])[] = [
  ["", "", "it is not JSON"],
  ["half a document", "{", "it is not JSON"],
  ["a list", "[]", "it is not a JSON object"],
  ["text", `"{}"`, "it is not a JSON object"],
  ["a number for os", `{"os":1}`, "Cannot read os of c: 1 is not a string"],
  ["an object for os", `{"os":{}}`, "Cannot read os of c: {} is not a string"],
  ["a list for rootfs", `{"rootfs":[]}`, "Cannot read c: rootfs is not an object"],
  ["text for rootfs", `{"rootfs":"layers"}`, "Cannot read c: rootfs is not an object"],
  ["a number for the type of rootfs", `{"rootfs":{"type":1}}`, "Cannot read type of rootfs of c: 1 is not a string"],
  ["an object for diff_ids", `{"rootfs":{"diff_ids":{}}}`, "Cannot read diff_ids of c: it is not a list of strings"],
  ["a number as a diffID", `{"rootfs":{"diff_ids":[1]}}`, "Cannot read diff_ids of c: it is not a list of strings"],
  [
    "a short diffID",
    `{"rootfs":{"diff_ids":["sha256:00"]}}`,
    'Cannot read c: the diffID "sha256:00" is not a sha256 digest',
  ],
  ["an object for history", `{"history":{}}`, "Cannot read c: history is not a list"],
  ["text in history", `{"history":["x"]}`, "Cannot read c: a history entry is not an object"],
  [
    "text for empty_layer",
    `{"history":[{"empty_layer":"yes"}]}`,
    'Cannot read empty_layer of a history entry of c: "yes" is not a boolean',
  ],
  ["a number for a date", `{"created":5}`, "Cannot read created of c: 5 is not a string"],
  ["no date for a date", `{"created":"yesterday"}`, "Cannot read created of c"],
  [
    "no date in history",
    `{"history":[{"created":"2024-13-01T00:00:00Z"}]}`,
    "Cannot read created of a history entry of c",
  ],
  ["a list for config", `{"config":[]}`, "Cannot read c: config is not an object"],
  ["text for Cmd", `{"config":{"Cmd":"sh"}}`, "Cannot read Cmd of c: it is not a list of strings"],
  ["a number in Env", `{"config":{"Env":["A=1",2]}}`, "Cannot read Env of c: it is not a list of strings"],
  ["a list for Labels", `{"config":{"Labels":["a=b"]}}`, "Cannot read Labels of c: it is not a map of strings"],
  ["a number in Labels", `{"config":{"Labels":{"a":1}}}`, "Cannot read Labels of c: it is not a map of strings"],
  ["text for Tty", `{"config":{"Tty":"true"}}`, 'Cannot read Tty of c: "true" has the wrong type'],
  ["a number for User", `{"config":{"User":0}}`, "Cannot read User of c: 0 has the wrong type"],
  ["a list for Volumes", `{"config":{"Volumes":["/a"]}}`, 'Cannot read Volumes of c: ["/a"] has the wrong type'],
  [
    "a number in ExposedPorts",
    `{"config":{"ExposedPorts":{"80":1}}}`,
    'Cannot read ExposedPorts of c: {"80":1} has the wrong type',
  ],
  ["text for Healthcheck", `{"config":{"Healthcheck":"x"}}`, 'Cannot read Healthcheck of c: "x" has the wrong type'],
  [
    "text for its Test",
    `{"config":{"Healthcheck":{"Test":"x"}}}`,
    "Cannot read Test of Healthcheck of c: it is not a list of strings",
  ],
  [
    "text for its Interval",
    `{"config":{"Healthcheck":{"Interval":"30s"}}}`,
    'Cannot read Interval of Healthcheck of c: "30s" is not a whole number',
  ],
  [
    "half a nanosecond",
    `{"config":{"Healthcheck":{"Timeout":0.5}}}`,
    "Cannot read Timeout of Healthcheck of c: 0.5 is not a whole number",
  ],
  ["text for os.features", `{"os.features":"x"}`, "Cannot read os.features of c: it is not a list of strings"],
];

/** One character is one byte: the tables above may hold bytes that are not UTF-8. */
const bytesOf = (text: string): Uint8Array => Buffer.from(text, /[^\0-\xff]/.test(text) ? "utf8" : "latin1");
const textOfBytes = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

const answers = await askGo("ggcr", {
  Configs: [...CONFIGS, ...BAD_CONFIGS].map(([, text]) => base64(bytesOf(text))),
});
const needsGo = test.skipIf(answers === undefined);

function numbered(table: readonly (readonly [string, string, ...string[]])[]): (readonly [string, string, number])[] {
  return table.map(([name, text], i) => [name, text, i] as const);
}

describe("readConfig() and encodeConfig()", () => {
  needsGo.each(numbered(CONFIGS))("write the bytes of go-containerregistry: %s", (_, text, i) => {
    const expected = textOf(listOf(answers, "Configs")[i]);
    expect(textOfBytes(encodeConfig(readConfig(bytesOf(text), "c")))).toBe(expected ?? "it refuses");
  });

  test("drop fields that go-containerregistry does not know", () => {
    const written = textOfBytes(encodeConfig(readConfig(bytesOf(JSON.stringify(FULL_CONFIG)), "c")));
    for (const name of ["container_config", "moby", "StopTimeout", "StartInterval", "unknown"]) {
      expect(written).not.toContain(name);
    }
  });

  test("ignore a prototype that the document names", () => {
    const { os, config } = readConfig(bytesOf(CONFIGS[7]?.[1] ?? ""), "c");
    expect({ os, user: config.User, labels: Object.keys(config.Labels ?? {}) }).toEqual({
      os: "",
      user: undefined,
      labels: ["__proto__", "constructor"],
    });
  });
});

describe("readConfig()", () => {
  needsGo.each(numbered(BAD_CONFIGS))("refuses the same as go-containerregistry: %s", (_, text, i) => {
    const theirs = listOf(answers, "Configs")[CONFIGS.length + i];
    expect(theirs).toBeNull();
    expect(() => readConfig(bytesOf(text), "c")).toThrow(KoError);
  });

  test.each(BAD_CONFIGS)("names the mistake: %s", (_, text, why) => {
    expect(() => readConfig(bytesOf(text), "c")).toThrow(why);
  });

  test("refuses a number that we could not write as it was", () => {
    const text = `{"config":{"Healthcheck":{"Interval":9007199254740993}}}`;
    expect(() => readConfig(bytesOf(text), "c")).toThrow("is not a whole number");
  });
});
