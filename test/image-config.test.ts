import { describe, expect, test } from "bun:test";
import { type ContainerSettings, type DebugSettings, makeConfig, NO_CONTAINER_SETTINGS } from "../lib/image-config.ts";
import { type ContainerConfig, encodeConfig, type ImageConfig } from "../lib/oci-config.ts";

interface Options {
  readonly base?: ContainerConfig;
  readonly os?: string;
  readonly programPath?: string;
  readonly debugger?: DebugSettings;
}

/** The configuration, parsed from its bytes. */
function configOf(container: Partial<ContainerSettings>, options: Options = {}): ImageConfig {
  const { base = {}, os = "linux", programPath = "/ko-app/app", debugger: delve } = options;
  const config = makeConfig(
    { architecture: "amd64", os, rootfs: { type: "layers", diff_ids: [] }, config: base },
    {
      importPath: "example.com/app",
      os,
      programPath,
      debugger: delve,
      container: { ...NO_CONTAINER_SETTINGS, ...container },
      diffIds: [],
      created: undefined,
      kodataCreated: undefined,
    },
  );
  return JSON.parse(new TextDecoder().decode(encodeConfig(config)));
}

const containerOf = (container: Partial<ContainerSettings>, options?: Options): ContainerConfig =>
  configOf(container, options).config;
const KODATA = "KO_DATA_PATH=/var/run/ko";

describe("makeConfig()", () => {
  test("sets nothing but the program by default", () => {
    expect(containerOf({})).toEqual({ Entrypoint: ["/ko-app/app"], Env: ["PATH=/ko-app", KODATA] });
  });

  test.each<[string, ContainerConfig, Partial<ContainerSettings>, ContainerConfig]>([
    [
      "variables, in the places of the base's",
      { Env: ["A=1", "PATH=/bin", "B=2", "A=3"] },
      {
        env: new Map([
          ["A", "x=y"],
          ["C", ""],
          ["B", "5"],
        ]),
      },
      { Env: ["A=x=y", "PATH=/bin:/ko-app", "B=5", "C=", KODATA] },
    ],
    [
      "PATH: ko's folder comes after it",
      { Env: ["PATH=/bin", "X=1"] },
      { env: new Map([["PATH", "/opt/bin:/usr/bin"]]) },
      { Env: ["PATH=/opt/bin:/usr/bin:/ko-app", "X=1", KODATA] },
    ],
    ["PATH, without one of the base", {}, { env: new Map([["PATH", "/x"]]) }, { Env: ["PATH=/x:/ko-app", KODATA] }],
    [
      "ports beside those of the base",
      { ExposedPorts: { "80/tcp": {}, "9/udp": {} } },
      { ports: ["8080/tcp", "80/tcp"] },
      { ExposedPorts: { "80/tcp": {}, "8080/tcp": {}, "9/udp": {} } },
    ],
    [
      "volumes beside those of the base",
      { Volumes: { "/a": {} } },
      { volumes: ["/b"] },
      { Volumes: { "/a": {}, "/b": {} } },
    ],
    ["arguments, instead of the base's", { Cmd: ["sh"] }, { cmd: ["serve", ""] }, { Cmd: ["serve", ""] }],
    [
      "arguments of the entrypoint",
      { Entrypoint: ["/old"] },
      { entrypointArgs: ["--a", "b"], cmd: ["c"] },
      { Entrypoint: ["/ko-app/app", "--a", "b"], Cmd: ["c"] },
    ],
    [
      "texts",
      { User: "1", WorkingDir: "/", StopSignal: "SIGTERM" },
      { user: "2:3", workdir: "/w", stopSignal: "SIGINT" },
      { User: "2:3", WorkingDir: "/w", StopSignal: "SIGINT" },
    ],
    [
      "no texts",
      { User: "1", WorkingDir: "/x", StopSignal: "9" },
      {},
      { User: "1", WorkingDir: "/x", StopSignal: "9" },
    ],
  ])("sets %s", (_, base, container, expected) => {
    expect(containerOf(container, { base })).toMatchObject(expected);
  });

  test("writes sets in the order of bytes, as Go does", () => {
    const config = containerOf({ ports: ["9/tcp", "80/udp", "8080/tcp"], volumes: ["/b", "/a"] });
    expect(Object.keys(config.ExposedPorts ?? {})).toEqual(["80/udp", "8080/tcp", "9/tcp"]);
    expect(Object.keys(config.Volumes ?? {})).toEqual(["/a", "/b"]);
  });

  test("has the paths of Windows there", () => {
    const container = { workdir: "/data/app", volumes: ["/data", "D:\\x"], entrypointArgs: ["/x"] };
    expect(containerOf(container, { os: "windows", programPath: "/bin/app" })).toEqual({
      Entrypoint: ["C:\\bin\\app", "/x"],
      Env: ["PATH=C:\\bin", "KO_DATA_PATH=C:\\var\\run\\ko"],
      Volumes: { "C:\\data": {}, "D:\\x": {} },
      WorkingDir: "C:\\data\\app",
    });
  });

  test("gives the arguments of the entrypoint to the program behind Delve", () => {
    const container = { entrypointArgs: ["-a"], cmd: ["b"], ports: ["80/tcp"] };
    expect(containerOf(container, { debugger: { isContinuing: false, port: 81 } })).toMatchObject({
      Entrypoint: [
        ...["/ko-app/dlv", "exec", "--listen=:81", "--headless", "--log", "--accept-multiclient", "--api-version=2"],
        ...["--", "/ko-app/app", "-a"],
      ],
      Cmd: ["b"],
      ExposedPorts: { "80/tcp": {}, "81/tcp": {} },
    });
  });

  test.each([
    ["/manager", ["PATH=/bin:/", KODATA]],
    ["/bin/manager", ["PATH=/bin", KODATA]],
    ["/usr/local/bin/x", ["PATH=/bin:/usr/local/bin", KODATA]],
  ])("starts the program at %s, whose folder is in PATH", (programPath, expected) => {
    const base = { Env: ["PATH=/bin"] };
    expect(containerOf({}, { base, programPath })).toEqual({ Entrypoint: [programPath], Env: expected });
    const { history = [] } = configOf({}, { base, programPath });
    expect(history.at(-1)?.comment).toBe(`go build output, at ${programPath}`);
  });
});
