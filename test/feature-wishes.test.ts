/**
 * Wishes of users, each by its number in https://github.com/ko-build/ko/issues and by the user's own case (docs/wishes.md).
 * Programs that read images say that the settings are there: skopeo, crane, the docker daemon, containerd.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { findCounterparts } from "./helpers/counterparts.ts";
import { viaSocket } from "./helpers/daemon-bench.ts";
import { type DaemonKind, startContainerd, tryStartDaemon, whyNoContainerd, writeDocker } from "./helpers/daemon.ts";
import { goMod } from "./helpers/go.ts";
import { pull, pullLayer, readObject, splitReference } from "./helpers/registry-images.ts";
import { startRegistry, type TestRegistry } from "./helpers/registry.ts";
import { type Bench, makeBench } from "./helpers/world-bench.ts";
import { type Files, writeTree } from "./helpers/world-folders.ts";
import { output, waitUntil } from "./helpers/world-programs.ts";

const programs = findCounterparts(["docker-registry", "skopeo", "crane"]);
const canRun = Bun.which("docker") !== null && process.getuid?.() === 0;
/** Milliseconds: daemons start, and go builds. */
const PATIENCE = 120_000;

/** Prints how it was started; with "wait" it ends with the signal that it gets. */
const MAIN = `package main

import (
	"fmt"
	"os"
	"os/signal"
)

func main() {
	dir, _ := os.Getwd()
	fmt.Println(os.Args[1:], dir, os.Getenv("MODE"), os.Getuid(), os.Getgid())
	page, _ := os.ReadFile("page.txt")
	fmt.Print(string(page))
	if os.Args[len(os.Args)-1] == "wait" {
		caught := make(chan os.Signal, 1)
		signal.Notify(caught)
		for each := range caught {
			if each.String() != "urgent I/O condition" {
				fmt.Println(each)
				return
			}
		}
	}
}
`;

const FILES: Files = {
  "go.mod": goMod("example.com/app"),
  "cmd/web/main.go": MAIN,
  "cmd/web/kodata/page.txt": "the page\n",
  "cmd/other/main.go": MAIN,
};

/** A wish for an image: settings, and the part of the configuration that they make. */
interface Wish {
  readonly title: string;
  /** Of `.ko.yaml`. */
  readonly yaml?: string;
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly expected: Readonly<Record<string, unknown>>;
}

const PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const CERTIFICATES = "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt";
const KODATA = "KO_DATA_PATH=/var/run/ko";

const WISHES: readonly Wish[] = [
  {
    title: "#472: EXPOSE, so that tools find the port",
    yaml: "image: {ports: [8080, 9090/tcp, 53/udp]}\n",
    expected: { ExposedPorts: { "53/udp": {}, "8080/tcp": {}, "9090/tcp": {} } },
  },
  {
    title: "#472: EXPOSE by a flag, which replaces the list of the file",
    yaml: "image: {ports: [8080]}\n",
    args: ["--image-port=80,443"],
    expected: { ExposedPorts: { "80/tcp": {}, "443/tcp": {} } },
  },
  {
    title: "#800: ENV, a constant and the version of the build",
    yaml: "image:\n  env:\n    TZ: Europe/Berlin\n    VERSION: '{{ or (index .Env `VERSION`) `dev` }}'\n",
    env: { VERSION: "v1.2.3" },
    expected: { Env: [`${PATH}:/ko-app`, CERTIFICATES, "TZ=Europe/Berlin", "VERSION=v1.2.3", KODATA] },
  },
  {
    title: "#1126: environment variables of a single image, over those of all",
    yaml: "image: {env: [A=1, B=2]}\nbuilds: [{main: ./cmd/web, image: {env: [B=3]}}]\n",
    args: ["--image-env=NO_PROXY=a,b", "--image-env=A=4"],
    expected: { Env: [`${PATH}:/ko-app`, CERTIFICATES, "A=4", "B=3", "NO_PROXY=a,b", KODATA] },
  },
  {
    title: "#800: PATH, which ko's folder follows",
    yaml: "image: {env: {PATH: '/opt/bin:/usr/bin'}}\n",
    expected: { Env: ["PATH=/opt/bin:/usr/bin:/ko-app", CERTIFICATES, KODATA] },
  },
  {
    title: "#1260: WORKDIR, for a program that reads files by relative paths",
    yaml: "image: {workdir: /var/run/ko}\n",
    expected: { WorkingDir: "/var/run/ko" },
  },
  {
    title: "#1260: WORKDIR by a flag",
    args: ["--image-workdir=/work/{{.Env.GOARCH}}/"],
    expected: { WorkingDir: "/work/amd64" },
  },
  {
    title: "#1018: default arguments",
    yaml: "builds: [{main: ./cmd/web, image: {cmd: [serve, --port=8080]}}]\n",
    expected: { Entrypoint: ["/ko-app/web"], Cmd: ["serve", "--port=8080"] },
  },
  {
    title: "#1166: arguments of the entrypoint, and others by default",
    args: ["--image-entrypoint-arg=--config=/etc/a,b.yaml", "--image-entrypoint-arg=run", "--image-cmd=--help"],
    expected: { Entrypoint: ["/ko-app/web", "--config=/etc/a,b.yaml", "run"], Cmd: ["--help"] },
  },
  {
    title: "#626: an image section in .ko.yaml, with user, volumes and stop signal",
    yaml: "image:\n  user: 1000:2000\n  volumes: [/data]\n  stopSignal: SIGINT\n",
    expected: { User: "1000:2000", Volumes: { "/data": {} }, StopSignal: "SIGINT" },
  },
  {
    title: "#825: labels in .ko.yaml, with the original's flag over them",
    yaml: "image: {labels: {org.opencontainers.image.source: 'https://example.com/app', team: a}}\n",
    args: ["--image-label=team={{b}}"],
    expected: { Labels: { "org.opencontainers.image.source": "https://example.com/app", team: "{{b}}" } },
  },
  {
    title: "#1266: --image-user over the file",
    yaml: "image: {user: '1'}\n",
    args: ["--image-user=0"],
    expected: { User: "0" },
  },
];

let registry: TestRegistry;
const stack = new AsyncDisposableStack();

beforeAll(async () => {
  if (programs !== undefined) registry = stack.use(await startRegistry());
});

afterAll(() => stack.disposeAsync());

function open(yaml = ""): Bench {
  return makeBench(FILES, { host: registry.host, config: `defaultBaseImage: ko.builtin/static\n${yaml}` });
}

async function build(
  bench: Bench,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<string> {
  const { code, stderr, stdout } = await bench.ours(["build", "-B", "--sbom=none", "./cmd/web", ...args], { env });
  if (code !== 0) throw new Error(stderr);
  return stdout.trim();
}

/** The field `config` of a configuration. */
function containerOf(text: string): Readonly<Record<string, unknown>> {
  return readObject(readObject(JSON.parse(text))["config"]);
}

describe.skipIf(programs === undefined)("an image", () => {
  test.each(WISHES.map((wish) => [wish.title, wish] as const))(
    "%s",
    async (_, { args = [], env = {}, expected, yaml }) => {
      using bench = open(yaml);
      const pushed = await build(bench, args, env);
      const run = (...argv: readonly string[]): Promise<string> =>
        output(argv, { cwd: bench.work.path, env: process.env });
      const seen = {
        skopeo: await run("skopeo", "inspect", "--config", "--tls-verify=false", `docker://${pushed}`),
        crane: await run(programs?.crane ?? "", "config", "--insecure", pushed),
      };
      for (const text of Object.values(seen)) expect(containerOf(text)).toMatchObject(expected);
    },
    PATIENCE,
  );

  test(
    "#1090, #1235, #1395: annotations in .ko.yaml are on each image, and on the index if all have them",
    async () => {
      using bench = open(
        "image: {annotations: {a: '1', arch: '{{.Env.GOARCH}}'}}\nbuilds: [{main: ./cmd/web, image: {annotations: [b=2]}}]\n",
      );
      const index = await pull(await build(bench, ["--platform=linux/amd64,linux/arm64", "--image-annotation=b=3"]));
      if (index.kind !== "index") throw new Error("no index");
      const of = (text: string): unknown => readObject(JSON.parse(text))["annotations"];
      expect(of(index.text)).toMatchObject({ a: "1", b: "3" });
      expect(of(index.text)).not.toHaveProperty("arch");
      expect(index.children.map(({ text }) => of(text))).toMatchObject([
        { a: "1", b: "3", arch: "amd64" },
        { a: "1", b: "3", arch: "arm64" },
      ]);
    },
    PATIENCE,
  );

  test("#626: only the image of the entry has its settings, and others are as they were", async () => {
    using plain = open();
    using bench = open("builds: [{main: ./cmd/web, image: {env: [A=b], ports: 80}}]\n");
    const all = async (of: Bench): Promise<readonly string[]> => {
      const { code, stderr, stdout } = await of.ours(["build", "-B", "--push=false", "--sbom=none", "./..."]);
      if (code !== 0) throw new Error(stderr);
      return stdout
        .trim()
        .split("\n")
        .map((line) => line.replace(/.*@/, ""));
    };
    const [before, after] = [await all(plain), await all(bench)];
    expect([after[0] === before[0], after[1] === before[1]]).toEqual([true, false]);
  });
});

describe.skipIf(programs === undefined)("settings of an image", () => {
  const YAML =
    "image:\n  workdir: /var/run/ko\n  user: 1000:2000\n  stopSignal: SIGINT\n  env: [MODE=x]\n  ports: [8080]\n" +
    "  entrypointArgs: [--always]\n  cmd: [usually]\n";
  const STARTED = "[--always usually] /var/run/ko x 1000 2000\nthe page\n";

  test.skipIf(!canRun).each<DaemonKind>(["classic", "containerd", "podman"])(
    "#800, #1018, #1260: hold in a container of the daemon %s, by -L and by a tarball",
    async (kind) => {
      await using daemon = await tryStartDaemon(kind);
      if (daemon === undefined) return;
      using bench = open(YAML);
      const env = { ...bench.env, ...viaSocket(daemon.socket) };
      const docker = (...args: readonly string[]): Promise<string> =>
        output(["docker", ...args], { cwd: bench.work.path, env });
      const loaded = await build(bench, ["-L"], viaSocket(daemon.socket));
      const name = await build(bench, ["-t", "tar", "--push=false", "--tarball=web.tar"]);
      await docker("load", "-i", bench.tree.at("web.tar"));
      for (const reference of [loaded, name.replace(/@.*/, "")]) {
        const [{ Config: seen }] = JSON.parse(await docker("image", "inspect", reference));
        expect(seen).toMatchObject({ User: "1000:2000", WorkingDir: "/var/run/ko", Cmd: ["usually"] });
        expect(seen).toMatchObject({ Entrypoint: ["/ko-app/web", "--always"], ExposedPorts: { "8080/tcp": {} } });
      }
      // The others start no container inside of a container.
      if (kind !== "classic") return;
      expect(await docker("run", "--rm", "--network=none", loaded)).toBe(STARTED);
      expect(await docker("run", "--rm", "--network=none", loaded, "a", "b")).toBe(STARTED.replace("usually", "a b"));
      const waiting = (await docker("run", "--detach", "--network=none", loaded, "wait")).trim();
      await waitUntil(async () => (await docker("logs", waiting)).includes("page"));
      await docker("stop", waiting);
      expect(await docker("logs", waiting)).toBe(`${STARTED.replace("usually", "wait")}interrupt\n`);
      await docker("rm", waiting);
    },
    PATIENCE,
  );

  test.skipIf(whyNoContainerd() !== undefined)(
    "#800: are in the containerd of a kind node",
    async () => {
      using bench = open(YAML);
      await using node = await startContainerd();
      await writeDocker(bench.work, { "kind-control-plane": node });
      const labels = "io.x-k8s.kind.cluster=kind,io.x-k8s.kind.role=control-plane";
      const line = { Names: "kind-control-plane", Labels: labels, State: "running", Status: "Up 3 minutes" };
      bench.work.write({ ps: `${JSON.stringify(line)}\n` });
      const env = { KO_DOCKER_REPO: "kind.local", PATH: `${bench.work.at("bin")}:${process.env["PATH"]}` };
      const reference = await build(bench, [], env);
      const listed = await node.ctr("images", "ls", `name==${reference}`);
      const target = /sha256:[0-9a-f]{64}/.exec(listed.split("\n")[1]?.replace(/^\S+/, "") ?? "")?.[0] ?? "";
      const manifest = readObject(JSON.parse(await node.ctr("content", "get", target)));
      const config = await node.ctr("content", "get", String(readObject(manifest["config"])["digest"]));
      expect(containerOf(config)).toMatchObject({
        Entrypoint: ["/ko-app/web", "--always"],
        Cmd: ["usually"],
        User: "1000:2000",
        WorkingDir: "/var/run/ko",
        StopSignal: "SIGINT",
        ExposedPorts: { "8080/tcp": {} },
      });
    },
    PATIENCE,
  );

  test(
    "#800: a change is noticed by the next run, which compiles nothing, and --explain names it",
    async () => {
      using bench = open();
      const config = (yaml: string): void =>
        bench.work.write({ "config/.ko.yaml": `defaultBaseImage: ko.builtin/static\n${yaml}` });
      const run = async (env: Readonly<Record<string, string>> = {}, ...args: readonly string[]) => {
        const command = ["build", "-B", "--push=false", "--sbom=none", "--explain", "./cmd/web", ...args];
        const calls = bench.goCalls().length;
        const { code, stderr, stdout } = await bench.ours(command, { env });
        const right = await bench.ours(command, { env: { ...env, KOCACHE: "off" } });
        expect([code, stdout]).toEqual([0, right.stdout]);
        const why = stderr.split("\n").find((each) => each.includes("(linux/amd64):")) ?? stderr;
        return { why: why.replace(/.*: /, ""), calls: bench.goCalls().length - calls - 2 };
      };
      await run();
      expect(await run()).toEqual({ why: "reused, nothing changed", calls: 0 });
      config("image: {env: ['A={{ index .Env `A` }}']}\n");
      expect(await run()).toEqual({ why: "rebuilt, env of the image is set now", calls: 0 });
      expect(await run()).toEqual({ why: "reused, nothing changed", calls: 0 });
      expect(await run({ A: "1" })).toEqual({ why: "rebuilt, env of the image changed", calls: 0 });
      expect(await run({ A: "1" }, "--image-label=a=b")).toEqual({
        why: "rebuilt, labels of the image is set now",
        calls: 0,
      });
      config("");
      expect(await run({}, "--image-label=a=b")).toEqual({
        why: "rebuilt, env of the image is not set any more",
        calls: 0,
      });
    },
    PATIENCE,
  );

  test("#483: a value that cannot be is refused with its place, before anything is built", async () => {
    using bench = open(
      "builds:\n- main: ./cmd/web\n  image:\n    ports: ['{{.Env.PORT}}']\n    workdir: '{{.Env.DIRR}}'\n",
    );
    const { code, stderr } = await bench.ours(["build", "./cmd/web"], { env: { PORT: "http", DIR: "/x" } });
    expect(code).not.toBe(0);
    expect(bench.goCalls()).not.toContain("build");
    expect(stderr).toMatch(/config\/\.ko\.yaml:6:15.*there is no|"DIRR" is not set, the nearest is "DIR"/);
    bench.work.write({
      "config/.ko.yaml": "defaultBaseImage: ko.builtin/static\nimage:\n  ports: ['{{.Env.PORT}}']\n",
    });
    const second = await bench.ours(["build", "./cmd/web"], { env: { PORT: "http" } });
    expect(second.stderr).toContain('.ko.yaml:3:11: "http" is not a port, wanted a port such as 8080');
    const checked = await bench.ours(["check", "./cmd/web"], { env: { PORT: "http" } });
    expect([checked.code === 0, checked.stdout + checked.stderr]).toEqual([
      false,
      expect.stringContaining('"http" is not a port, wanted a port such as 8080, 8080/tcp or 53/udp'),
    ]);
  });
});

describe.skipIf(programs === undefined)("#944, #1166: a program elsewhere", () => {
  const POD = (command: string): string =>
    `apiVersion: v1\nkind: Pod\nmetadata: {name: m}\nspec:\n  containers:\n  - name: m\n    image: ko://example.com/app/cmd/web\n    command: [${command}]\n`;

  /** The names in the layer of the program, and the configuration. */
  async function read(reference: string): Promise<{ names: readonly string[]; config: string; tar: string }> {
    const image = await pull(reference);
    if (image.kind !== "image") throw new Error("an index");
    const tar = await pullLayer(splitReference(reference), image.layers.at(-1)?.digest ?? "");
    using work = writeTree({ "layer.tar": tar });
    const names = await output(["tar", "tPf", "layer.tar"], { cwd: work.path, env: process.env });
    return { names: names.trim().split("\n"), config: image.configText, tar: Buffer.from(tar).toString("latin1") };
  }

  test(
    "/manager, as in a Dockerfile of kubebuilder, that the YAML starts",
    async () => {
      using bench = open("builds: [{main: ./cmd/web, binary: /manager, linux_capabilities: [net_raw]}]\n");
      const { config, names, tar } = await read(await build(bench, []));
      expect(names).toEqual(["/manager"]);
      expect(tar).toContain("SCHILY.xattr.security.capability=");
      expect(containerOf(config)).toMatchObject({ Entrypoint: ["/manager"] });
      expect(containerOf(config)["Env"]).toContain(`${PATH}:/`);
      expect(config).toContain("go build output, at /manager");
      bench.tree.write({ "pod.yaml": POD("/manager") });
      const good = await bench.ours(["check", "-f", "pod.yaml"]);
      expect([good.code, good.stdout]).toEqual([0, expect.not.stringContaining("no such file")]);
      bench.tree.write({ "pod.yaml": POD("/ko-app/web") });
      const bad = await bench.ours(["check", "-f", "pod.yaml"]);
      expect(bad.code).not.toBe(0);
      expect(bad.stdout + bad.stderr).toContain('no such file as "/ko-app/web": it has /manager');
    },
    PATIENCE,
  );

  test(
    "/usr/local/bin/web, with folders above it; a change is noticed",
    async () => {
      using bench = open();
      const config = (path: string): void =>
        bench.work.write({
          "config/.ko.yaml": `defaultBaseImage: ko.builtin/static\nbuilds: [{main: ./cmd/web, binary: ${path}}]\n`,
        });
      const run = async (): Promise<string> => {
        const command = ["build", "-B", "--push=false", "--sbom=none", "--explain", "./cmd/web"];
        const { code, stderr, stdout } = await bench.ours(command);
        expect([code, stdout]).toEqual([0, (await bench.ours(command, { env: { KOCACHE: "off" } })).stdout]);
        return /\(linux\/amd64\): (.*)/.exec(stderr)?.[1] ?? stderr;
      };
      await run();
      config("/usr/local/bin/web");
      expect(await run()).toBe("rebuilt, binary in .ko.yaml is set now");
      expect(await run()).toBe("reused, nothing changed");
      config("/manager");
      expect(await run()).toBe("rebuilt, binary in .ko.yaml changed");
      config("/usr/local/bin/web");
      expect(await run()).toBe("reused, nothing changed");
      const shown = await bench.ours(["config", "./cmd/web"]);
      expect(shown.stdout).toMatch(/binary +\/usr\/local\/bin\/web +# .*config\/\.ko\.yaml:2:36/);
      const { config: text, names } = await read(await build(bench, []));
      expect(names).toEqual(["usr", "usr/local", "usr/local/bin", "/usr/local/bin/web"]);
      expect(containerOf(text)["Env"]).toContain(PATH);
    },
    PATIENCE,
  );

  test.skipIf(!canRun)(
    "starts in a container, by its path and by its name",
    async () => {
      await using daemon = await tryStartDaemon("classic");
      if (daemon === undefined) return;
      using bench = open("builds: [{main: ./cmd/web, binary: /opt/tools/manager}]\n");
      const env = { ...bench.env, ...viaSocket(daemon.socket) };
      const loaded = await build(bench, ["-L"], viaSocket(daemon.socket));
      const run = (...args: readonly string[]): Promise<string> =>
        output(["docker", "run", "--rm", "--network=none", ...args], { cwd: bench.work.path, env });
      expect(await run(loaded, "a")).toBe("[a] /home/nonroot  65532 65532\n");
      expect(await run("--entrypoint=manager", loaded, "b")).toBe("[b] /home/nonroot  65532 65532\n");
    },
    PATIENCE,
  );
});

describe.skipIf(programs === undefined)("where the configuration is", () => {
  test(
    "#172: from a subfolder, the file of the repository counts, and its paths are its own",
    async () => {
      using bench = makeBench(FILES, { host: registry.host });
      bench.tree.write({
        ".git/HEAD": "ref: refs/heads/main\n",
        ".ko.yaml":
          "defaultBaseImage: ko.builtin/static\nbuilds:\n- main: ./cmd/web\n  image: {workdir: /from-the-root}\n",
        "docs/x": "",
      });
      const cwd = bench.tree.at("docs");
      const built = await bench.ours(["build", "--config=auto", "-v", "example.com/app/cmd/web"], { cwd });
      expect([built.code, built.stderr]).toEqual([
        0,
        expect.stringContaining(`Configuration: ${bench.tree.at(".ko.yaml")}`),
      ]);
      const image = await pull(built.stdout.trim());
      expect(image.kind === "image" && image.configText).toContain('"WorkingDir":"/from-the-root"');
      const plain = await bench.ours(["build", "example.com/app/cmd/web"], { cwd, env: { KO_CONFIG_PATH: "" } });
      expect(plain.stderr).toContain(
        "../.ko.yaml is not read, as it is above the working directory: --config=auto reads it",
      );
      const shown = await bench.ours(["config", "--config=auto"], { cwd });
      expect(shown.stdout).toMatch(/file +\S+\.ko\.yaml +# --config/);
      const wrong = await bench.ours(["build", "--config", "none.yaml", "."], { cwd });
      expect([wrong.code, wrong.stderr]).toEqual([2, expect.stringContaining('"none.yaml": it does not exist')]);
    },
    PATIENCE,
  );

  test(
    "#627, #1228, #453: the repository and the names are in the file, a profile has others, and the variable comes first",
    async () => {
      const repo = `${registry.host}/from-file-${crypto.randomUUID()}`;
      const config = `defaultBaseImage: ko.builtin/static\nrepo: ${repo}\nnaming: base-import-paths\nsbom: none\nprofiles:\n  dev: {naming: bare, repo: ${repo}/dev}\n`;
      using bench = makeBench(FILES, { host: registry.host, config });
      const push = async (env: Readonly<Record<string, string>>, ...flags: readonly string[]): Promise<string> => {
        const { code, stderr, stdout } = await bench.ours(["build", ...flags, "./cmd/web"], { env });
        if (code !== 0) throw new Error(stderr);
        return `${stdout.replace(/@.*\n/, "")}${stderr.includes("Published SBOM") ? " with SBOM" : ""}`;
      };
      const none = { KO_DOCKER_REPO: "" };
      expect(await push(none)).toBe(`${repo}/web`);
      expect(await push(none, "--profile=dev")).toBe(`${repo}/dev`);
      expect(await push({ ...none, KO_PROFILE: "dev" }, "-B", "--sbom=spdx")).toBe(`${repo}/dev/web with SBOM`);
      expect(await push({})).toBe(`${bench.repository}/web`);
      const shown = await bench.ours(["config", "--profile=dev", "./cmd/web"], { env: none });
      expect(shown.stdout).toMatch(new RegExp(`image +${repo}/dev +# \\S+:6:\\d+, \\S+:6:\\d+`));
      const wrong = await bench.ours(["build", "--profile=prod", "./cmd/web"], { env: none });
      expect([wrong.code, wrong.stderr]).toEqual([
        2,
        expect.stringContaining('Cannot use profile "prod": the file has dev'),
      ]);
    },
    PATIENCE,
  );
});
