/**
 * minikube, played by a script that answers as minikube's sources do: finding a profile, its platform, loading into it.
 */
import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import type { ArchiveItem } from "../lib/archive.ts";
import { type ClusterOptions, clusterPlatform, findCluster, type MinikubeProfile } from "../lib/cluster.ts";
import { loadIntoCluster } from "../lib/cluster-load.ts";
import { type Log, silentLog } from "../lib/log.ts";
import { hexOf } from "../lib/oci.ts";
import { failureOf } from "./helpers/failures.ts";
import { daemonImage } from "./helpers/images.ts";
import { type Tree, type TreeEntry, writeTree } from "./helpers/world-folders.ts";
import { hostAt } from "./helpers/world-host.ts";
import { runToEnd } from "./helpers/world-programs.ts";

const PROFILE: MinikubeProfile = { kind: "minikube", name: "minikube", dockerEnv: undefined };

/** The output of `minikube docker-env --shell bash`. */
function dockerEnv(host = "tcp://192.168.49.2:2376", profile = "minikube"): string {
  return `export DOCKER_TLS_VERIFY="1"
export DOCKER_HOST="${host}"
export DOCKER_CERT_PATH="/home/me/.minikube/certs"
export MINIKUBE_ACTIVE_DOCKERD="${profile}"

# To point your shell to minikube's docker-daemon, run:
# eval $(minikube -p ${profile} docker-env)
`;
}

/** A profile's `config.json`, as far as it matters. */
function profileConfig(runtime: string, nodes = 1): string {
  const Nodes = Array.from({ length: nodes }, (_, i) => ({
    Name: i === 0 ? "" : `m0${i + 1}`,
    ContainerRuntime: runtime,
  }));
  return JSON.stringify({ Name: "minikube", Driver: "docker", KubernetesConfig: { ContainerRuntime: runtime }, Nodes });
}

const REFUSAL = `
❌  Exiting due to MK_USAGE: The docker-env command is only compatible with the "docker" runtime, but this cluster was configured to use the "containerd" runtime.
`;
const NOT_RUNNING = `
🤷  The control-plane node minikube host is not running: state=Stopped
👉  To start a cluster, run: "minikube start"
`;

/** A tree with a `minikube` that keeps its images in the file `images`, and writes down its calls. */
function writeMinikube(answers: Readonly<Record<string, TreeEntry>>): Tree {
  const tree = writeTree({ calls: "", images: "registry.k8s.io/pause:3.10\n", ...answers });
  tree.write({
    "bin/minikube": {
      executable: `#!/bin/bash
cd '${tree.path}' || exit 99
echo "$*" >> calls
[ "$1" = -p ] || exit 98
shift 2
case "$*" in
  docker-env*) cat docker-env.err >&2; [ -e docker-env ] || exit 14; cat docker-env ;;
  "ssh -- uname -m") printf 'aarch64\\r\\n' ;;
  "image ls") cat images ;;
  "image load --daemon=false "*)
    if [ -e load.err ]; then cat load.err >&2; exit 80; fi
    cp "\${!#}" loaded.tar
    [ -e load.silent ] || tar xOf loaded.tar manifest.json | grep -o '"RepoTags":\\["[^]]*' | grep -o 'minikube.local/[^"]*' >> images ;;
  "image tag "*) grep -qxF "$3" images || exit 80; echo "$4" >> images ;;
  "image rm "*) grep -vxF "$3" images > rest; mv rest images ;;
  *) exit 97 ;;
esac
`,
    },
  });
  return tree;
}

function optionsFor(tree: Tree, env: Readonly<Record<string, string>> = {}): ClusterOptions {
  const path = `${tree.at("bin")}:${process.env["PATH"] ?? ""}`;
  const host = hostAt(tree.path, { env: { PATH: path, HOME: tree.path, TMPDIR: tree.path, ...env } });
  return { host, log: silentLog, signal: host.signal };
}

describe("findCluster() for minikube", () => {
  test("gives the environment of the profile's daemon, without the host's own Docker settings", async () => {
    using tree = writeMinikube({ "docker-env": dockerEnv(), "docker-env.err": "" });
    const { host, ...rest } = optionsFor(tree, { DOCKER_CONTEXT: "x", DOCKER_TLS: "1", DOCKER_API_VERSION: "1.41" });
    const { PATH = "" } = host.env;
    expect(await findCluster("minikube", { host, ...rest })).toEqual({
      kind: "minikube",
      name: "minikube",
      dockerEnv: {
        PATH,
        HOME: tree.path,
        TMPDIR: tree.path,
        DOCKER_API_VERSION: "1.41",
        DOCKER_TLS_VERIFY: "1",
        DOCKER_HOST: "tcp://192.168.49.2:2376",
        DOCKER_CERT_PATH: "/home/me/.minikube/certs",
      },
    });
    expect(readFileSync(tree.at("calls"), "utf8")).toBe("-p minikube docker-env --shell bash\n");
  });

  test.each<readonly [string, Readonly<Record<string, TreeEntry>>, Readonly<Record<string, string>>, string]>([
    ["its default", {}, {}, "minikube"],
    [
      "MINIKUBE_PROFILE",
      { ".minikube/config/config.json": '{"profile":"chosen"}' },
      { MINIKUBE_PROFILE: "env" },
      "env",
    ],
    ["minikube's configuration", { ".minikube/config/config.json": '{"profile":"chosen"}' }, {}, "chosen"],
    [
      "minikube's configuration in MINIKUBE_HOME",
      { "else/.minikube/config/config.json": '{"profile":"chosen"}' },
      { MINIKUBE_HOME: "else" },
      "chosen",
    ],
    [
      "minikube's configuration in a MINIKUBE_HOME named .minikube",
      { "else/.minikube/config/config.json": '{"profile":"chosen"}' },
      { MINIKUBE_HOME: "else/.minikube" },
      "chosen",
    ],
    ["its default, where the configuration is damaged", { ".minikube/config/config.json": "{" }, {}, "minikube"],
  ])("takes the profile from %s", async (_what, files, env, profile) => {
    using tree = writeMinikube({ "docker-env": dockerEnv(), "docker-env.err": "", ...files });
    const home = env["MINIKUBE_HOME"];
    const found = await findCluster(
      "minikube",
      optionsFor(tree, home === undefined ? env : { MINIKUBE_HOME: tree.at(home) }),
    );
    expect(found.name).toBe(profile);
    expect(readFileSync(tree.at("calls"), "utf8")).toBe(`-p ${profile} docker-env --shell bash\n`);
  });

  test.each<readonly [string, Readonly<Record<string, TreeEntry>>, number]>([
    ["containerd", { ".minikube/profiles/minikube/config.json": profileConfig("containerd") }, 0],
    ["CRI-O", { ".minikube/profiles/minikube/config.json": profileConfig("crio") }, 0],
    ["several nodes", { ".minikube/profiles/minikube/config.json": profileConfig("docker", 2) }, 0],
    ["a refusal of docker-env", { "docker-env.err": REFUSAL }, 1],
    ["a daemon behind ssh", { "docker-env": dockerEnv("ssh://docker@127.0.0.1:33000"), "docker-env.err": "" }, 1],
  ])("loads images where there is %s", async (_what, files, asked) => {
    using tree = writeMinikube(files);
    expect(await findCluster("minikube", optionsFor(tree))).toEqual(PROFILE);
    expect(readFileSync(tree.at("calls"), "utf8").split("\n").length - 1).toBe(asked);
  });

  test.each([
    ["MINIKUBE_PROFILE", "--delete-on-failure", {}, { MINIKUBE_PROFILE: "--delete-on-failure" }],
    ["MINIKUBE_PROFILE", "../x", {}, { MINIKUBE_PROFILE: "../x" }],
    ["minikube's configuration", "a;id", { ".minikube/config/config.json": '{"profile":"a;id"}' }, {}],
  ])("refuses %s with %s, before minikube is run", async (_what, name, files, env) => {
    using tree = writeMinikube({ "docker-env": dockerEnv(), "docker-env.err": "", ...files });
    const { message } = await failureOf(findCluster("minikube", optionsFor(tree, env)));
    expect(message).toStartWith(`Cannot use "${name}" of `);
    expect(readFileSync(tree.at("calls"), "utf8")).toBe("");
  });

  test("reports minikube's message if the profile does not run", async () => {
    using tree = writeMinikube({ "docker-env.err": NOT_RUNNING });
    expect(await failureOf(findCluster("minikube", optionsFor(tree)))).toEqual({
      message:
        'Cannot use the minikube profile "minikube": The control-plane node minikube host is not running: state=Stopped',
      hint: "minikube -p minikube status",
    });
  });

  test("refuses an answer without a daemon", async () => {
    using tree = writeMinikube({ "docker-env": "# nothing\n", "docker-env.err": "" });
    expect((await failureOf(findCluster("minikube", optionsFor(tree)))).message).toBe(
      'Cannot use the minikube profile "minikube": "minikube docker-env" does not set DOCKER_HOST',
    );
  });

  test("fails if minikube is not installed", async () => {
    using tree = writeTree({ bin: null });
    const host = hostAt(tree.path, { env: { PATH: tree.at("bin"), HOME: tree.path } });
    expect((await failureOf(findCluster("minikube", { host, log: silentLog, signal: host.signal }))).message).toBe(
      'Cannot use the minikube profile "minikube": Cannot run minikube: it is not installed, or not on PATH',
    );
  });
});

describe("clusterPlatform() of minikube", () => {
  test("asks the node", async () => {
    using tree = writeMinikube({});
    expect(await clusterPlatform(PROFILE, optionsFor(tree))).toEqual({ os: "linux", architecture: "arm64" });
  });
});

describe("loadIntoCluster() of minikube", () => {
  async function makeItem(tags: readonly string[]): Promise<ArchiveItem> {
    const image = await daemonImage({ seed: "minikube" });
    const own = `minikube.local/app:${hexOf(image.descriptor.digest)}`;
    return { image, names: [own, ...tags.map((tag) => `minikube.local/app:${tag}`)] };
  }

  test("loads an archive with the first names, then moves the others, and leaves no file behind", async () => {
    using tree = writeMinikube({});
    const item = await makeItem(["latest"]);
    await loadIntoCluster({ ...PROFILE, name: "dev" }, [item], optionsFor(tree));
    const [own = ""] = item.names;
    const calls = readFileSync(tree.at("calls"), "utf8").replace(/\S+\/images\.tar/, "FILE");
    expect(calls).toBe(
      ["image ls", "image load --daemon=false FILE", `image tag ${own} minikube.local/app:latest`, "image ls"]
        .map((call) => `-p dev ${call}\n`)
        .join(""),
    );
    const { stdout } = await runToEnd(["tar", "xOf", tree.at("loaded.tar"), "manifest.json"], {
      cwd: tree.path,
      env: process.env,
    });
    expect(JSON.parse(stdout)).toEqual([expect.objectContaining({ RepoTags: [own] })]);
    expect([...new Bun.Glob("ko-minikube-*").scanSync({ cwd: tree.path, onlyFiles: false })]).toEqual([]);
  });

  test("does not load an image that is listed", async () => {
    const item = await makeItem([]);
    using tree = writeMinikube({ images: `${item.names[0] ?? ""}\n` });
    await loadIntoCluster(PROFILE, [item], optionsFor(tree));
    expect(existsSync(tree.at("loaded.tar"))).toBe(false);
  });

  test("reports minikube's message and leaves no name if loading fails", async () => {
    const why = "Exiting due to GUEST_IMAGE_LOAD: Failed to load image: no space left on device";
    using tree = writeMinikube({
      "load.err": `\n❌  ${why}\n\n╭───╮\n│ 😿  If the above advice does not help │\n╰───╯\n`,
    });
    const item = await makeItem([]);
    expect(await failureOf(loadIntoCluster(PROFILE, [item], optionsFor(tree)))).toEqual({
      message: `Cannot use the minikube profile "minikube": ${why}`,
      hint: "minikube -p minikube status",
    });
    expect(readFileSync(tree.at("calls"), "utf8")).toContain(`image rm ${item.names[0] ?? ""}\n`);
  });

  test("fails if minikube has loaded nothing although it exits with 0", async () => {
    using tree = writeMinikube({ "load.silent": "" });
    const item = await makeItem([]);
    expect(await failureOf(loadIntoCluster(PROFILE, [item], optionsFor(tree)))).toEqual({
      message: `Cannot load images into the minikube profile "minikube": "${item.names[0] ?? ""}" is missing after loading`,
      hint: "minikube -p minikube logs",
    });
  });

  test("logs the names that could not be removed", async () => {
    const lines: string[] = [];
    const log: Log = { ...silentLog, debug: (message) => void lines.push(message) };
    using tree = writeMinikube({ "load.err": "it broke\n" });
    tree.write({ "bin/mv": { executable: "#!/bin/sh\nexit 1\n" } });
    const item = await makeItem([]);
    await failureOf(loadIntoCluster(PROFILE, [item], { ...optionsFor(tree), log }));
    expect(lines).toEqual([`Cannot remove ${item.names[0] ?? ""} from minikube: Cannot run minikube: exit code 1`]);
  });
});
