/**
 * `ko doctor` on a sound machine and on broken ones: the line that a person needs is there, nothing else claims to be wrong,
 * no secret shows, nothing is written, and nothing outlives it.
 *
 * Registries, git, go and kubectl are real. Faults have fakes: a go of another age, a daemon that is silent.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmodSync, existsSync, lstatSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { Ajv2020 } from "ajv/dist/2020.js";
import { type DoctorOptions, runDoctor } from "../lib/doctor.ts";
import { createLog } from "../lib/log.ts";
import { startApiServer } from "./helpers/cluster.ts";
import { findCounterparts } from "./helpers/counterparts.ts";
import { tryStartDaemon, unmountBelow } from "./helpers/daemon.ts";
import { goMod, mainGo } from "./helpers/go.ts";
import { FaultProxy } from "./helpers/registry-fault-proxy.ts";
import { findFreePort, makeAuthority, makeCertificate, startRegistry, type TestRegistry } from "./helpers/registry.ts";
import { type Files, type Tree, writeTree } from "./helpers/world-folders.ts";
import { hostAt, runKoHere } from "./helpers/world-host.ts";
import { commitTree, ourCommand, runToEnd, start, survivorsWith, waitUntil } from "./helpers/world-programs.ts";

interface Finding {
  readonly name: string;
  readonly status: "ok" | "note" | "problem";
  readonly message: string;
  readonly hint?: string;
  readonly facts?: object;
}

interface Report {
  readonly version: number;
  readonly koVersion: string;
  readonly problems: number;
  readonly notes: number;
  readonly findings: readonly Finding[];
}

/** A machine. Everything on it is as it should be, until a row breaks it. */
interface World extends AsyncDisposable {
  readonly tree: Tree;
  readonly env: Record<string, string>;
  readonly options: { -readonly [K in keyof DoctorOptions]?: DoctorOptions[K] };
  /** Texts that differ from run to run, and their names. */
  readonly names: Map<string, string>;
  readonly stack: AsyncDisposableStack;
  run(): Promise<Report>;
}

const programs = findCounterparts(["docker-registry", "kubectl"]);
const PASSWORD = "canary-password-1";
const login = (password: string): string => Buffer.from(`joe:${password}`).toString("base64");
const isRoot = process.getuid?.() === 0;

const validate = new Ajv2020({ allErrors: true, strictTypes: false }).compile(
  JSON.parse(readFileSync(`${import.meta.dir}/../docs/schemas/doctor.v1.json`, "utf8")),
);

let registry: TestRegistry;
let api: { readonly url: string };
const closing = new AsyncDisposableStack();

beforeAll(async () => {
  if (programs === undefined) return;
  registry = closing.use(await startRegistry({ accounts: { joe: PASSWORD } }));
  const version = { major: "1", minor: "36", gitVersion: "v1.36.1" };
  const server = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: () => Response.json(version) });
  closing.defer(() => server.stop(true));
  api = { url: server.url.origin };
});

afterAll(() => closing.disposeAsync());

function kubeconfig(server: string, context = "test"): string {
  return JSON.stringify({
    apiVersion: "v1",
    kind: "Config",
    clusters: [{ name: "test", cluster: { server } }],
    users: [{ name: "admin", user: { token: "canary-kube-token" } }],
    contexts: [{ name: "test", context: { cluster: "test", user: "admin", namespace: "web" } }],
    "current-context": context,
  });
}

function dockerConfig(host: string, password = PASSWORD): string {
  return JSON.stringify({ auths: { [host]: { auth: login(password) } } });
}

/** A daemon that knows no more than its name. */
function serveDaemon(socket: string): Disposable {
  const server = Bun.serve({
    unix: socket,
    fetch: (request) => {
      const { pathname } = new URL(request.url);
      if (pathname.endsWith("/version")) return Response.json({ Os: "linux", Arch: "amd64" });
      if (pathname.endsWith("/info")) return Response.json({ DriverStatus: [] });
      return new Response("OK", { headers: { "api-version": "1.47" } });
    },
  });
  return { [Symbol.dispose]: () => void server.stop(true) };
}

const script = (text: string): Files[string] => ({ executable: `#!/bin/sh\n${text}\n` });

async function makeWorld(): Promise<World> {
  await using stack = new AsyncDisposableStack();
  const tree = stack.use(
    writeTree({
      "work/go.mod": goMod("example.com/app"),
      "work/main.go": mainGo("app"),
      "work/.ko.yaml": "defaultBaseImage: ko.builtin/static\n",
      // go counts its calls there, as its user says: not here.
      "home/.config/go/telemetry/mode": "off\n",
      "home/.gitconfig": "[safe]\n\tdirectory = *\n",
      "home/.docker/config.json": dockerConfig(registry.host),
      "home/kubeconfig": kubeconfig(api.url),
      "inotify/max_user_watches": "65536\n",
      "inotify/max_user_instances": "256\n",
      run: null,
      tmp: null,
    }),
  );
  for (const name of ["go", "git", "sh", "sleep"]) {
    tree.write({ [`bin/${name}`]: { link: Bun.which(name) ?? "" } });
  }
  // Quicker than the real one, which the rows about it use.
  const version = { clientVersion: { gitVersion: "v1.36.0" }, serverVersion: { gitVersion: "v1.36.1" } };
  const answers = `test "$1" = config && echo '${kubeconfig(api.url)}' || echo '${JSON.stringify(version)}'`;
  tree.write({ "bin/kubectl": script(answers) });
  await commitTree(tree.at("work"));
  stack.use(serveDaemon(tree.at("run/docker.sock")));
  const env: Record<string, string> = {
    PATH: tree.at("bin"),
    HOME: tree.at("home"),
    TMPDIR: tree.at("tmp"),
    TZ: "UTC",
    KO_DOCKER_REPO: `${registry.host}/team`,
    KUBECONFIG: tree.at("home/kubeconfig"),
    DOCKER_HOST: `unix://${tree.at("run/docker.sock")}`,
  };
  stack.defer(() => unmountBelow(tree.path));
  const options: World["options"] = {};
  const names = new Map([
    [tree.path, "$DIR"],
    [registry.host, "$REGISTRY"],
  ]);
  const run = async (): Promise<Report> => {
    const { text } = await runDoctor(hostAt(tree.at("work"), { env }), {
      log: createLog("quiet", () => {}),
      kubectl: [],
      local: false,
      insecureRegistry: false,
      json: true,
      inotify: tree.at("inotify"),
      ...options,
    });
    return JSON.parse(text);
  };
  const moved = stack.move();
  return { tree, env, options, names, run, stack: moved, [Symbol.asyncDispose]: () => moved.disposeAsync() };
}

/** Versions of this machine's programs. */
const VERSIONS: readonly (readonly [RegExp, string])[] = [
  [/\bgo ?1\.\d+\.\d+(?= at|; GOTOOLCHAIN|\))/g, "$GO"],
  [/[\d.]+(?= at \S+\/git\b)/g, "$GIT"],
  [/v1\.\d+\.\d+\S*(?= at \S+\/kubectl\b)/g, "$KUBECTL"],
];

/** The lines of the findings that are not "ok", with names in place of the texts that differ. */
function complaints({ names }: Pick<World, "names">, { findings }: Report): readonly string[] {
  const replacements = [...VERSIONS, ...names];
  return (
    findings
      // From its sources ko asks git for its version, which may take long on a busy machine.
      .filter(({ name, status }) => status !== "ok" && name !== "ko")
      .flatMap(({ hint, message, name, status }) => [
        `${status} ${name}: ${message}`,
        ...(hint === undefined ? [] : [hint]),
      ])
      .map((line) => replacements.reduce((short, [long, name]) => short.replaceAll(long, name), line))
  );
}

/** Replaces a program of the machine. */
function replace({ tree }: World, name: string, text: string): void {
  Bun.spawnSync(["rm", "-f", tree.at(`bin/${name}`)]);
  tree.write({ [`bin/${name}`]: script(text) });
}

/** Puts the real kubectl there, with another configuration. */
function useKubectl(world: World, config?: string): void {
  remove(world, "kubectl");
  world.tree.write({ "bin/kubectl": { link: programs?.kubectl ?? "" } });
  if (config !== undefined) world.tree.write({ "home/kubeconfig": config });
}

function remove({ tree }: World, ...names: readonly string[]): void {
  for (const name of names) Bun.spawnSync(["rm", "-f", tree.at(`bin/${name}`)]);
}

/** Serves over TLS with a certificate. */
function serveTls({ stack, names }: World, tls: { readonly cert: string; readonly key: string }, name: string): string {
  const server = Bun.serve({ hostname: "127.0.0.1", port: 0, tls, fetch: () => new Response("{}") });
  stack.defer(() => server.stop(true));
  const host = `127.0.0.1:${server.port}`;
  names.set(host, name);
  return host;
}

/** A port that accepts connections and says nothing. */
function listenSilently({ stack, names }: World, name: string): string {
  const server = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
  stack.defer(() => server.stop(true));
  names.set(`127.0.0.1:${server.port}`, name);
  return `127.0.0.1:${server.port}`;
}

async function closedPort({ names }: World): Promise<string> {
  const host = `127.0.0.1:${await findFreePort()}`;
  names.set(host, "$CLOSED");
  return host;
}

async function refuse(world: World, status: number, body: string): Promise<void> {
  const proxy = world.stack.use(await FaultProxy.start(registry.host));
  proxy.rules = [{ path: /manifests/, fault: { kind: "answer", status, body } }];
  world.names.set(proxy.host, "$PROXY");
  world.env["KO_DOCKER_REPO"] = `${proxy.host}/team`;
  world.tree.write({ "home/.docker/config.json": dockerConfig(proxy.host) });
}

function mount({ tree }: World, folder: string, options: string): void {
  const { exitCode, stderr } = Bun.spawnSync(["mount", "-t", "tmpfs", "-o", options, "none", tree.at(folder)]);
  if (exitCode !== 0) throw new Error(`cannot mount: ${stderr.toString()}`);
}

/** Whether a disk can be mounted here: it takes root, and more than a container has. */
const canMount = ((): boolean => {
  if (!isRoot) return false;
  using tree = writeTree({ disk: null });
  const { exitCode } = Bun.spawnSync(["mount", "-t", "tmpfs", "-o", "size=1m", "none", tree.at("disk")]);
  unmountBelow(tree.path);
  return exitCode === 0;
})();

/** Variables and files of the tree that replace those of a sound machine. */
interface Changes {
  readonly env?: Readonly<Record<string, string>>;
  readonly files?: Files;
}

/** What is broken, and all lines of the report that are not "ok", each with its hint. */
type Row = readonly [
  name: string,
  broken: Changes | ((world: World) => void | Promise<void>),
  lines: readonly string[],
];

const ROWS: readonly Row[] = [
  [
    "no go",
    (world) => remove(world, "go"),
    [
      "problem go: Cannot run go: it is not installed, or not on PATH",
      "Install Go from https://go.dev/dl/, or set KO_GO_PATH to the program.",
    ],
  ],
  [
    "a KO_GO_PATH that does not exist",
    ({ env, tree }) => void (env["KO_GO_PATH"] = tree.at("none/go")),
    [
      "problem go: Cannot run $DIR/none/go: it is not installed, or not on PATH",
      "Install Go from https://go.dev/dl/, or set KO_GO_PATH to the program.",
    ],
  ],
  [
    "a go of 2020",
    (world) => replace(world, "go", `echo '{"GOVERSION": "go1.15.2", "GOROOT": "/old"}'`),
    [
      "problem go: $GO at $DIR/bin/go is too old: ko needs Go 1.19 or later",
      "Install Go from https://go.dev/dl/, or set KO_GO_PATH to the program.",
    ],
  ],
  [
    "a go that does not answer",
    (world) => replace(world, "go", "trap '' TERM; sleep 300"),
    [
      "problem go: go did not answer within 4 s",
      "Install Go from https://go.dev/dl/, or set KO_GO_PATH to the program.",
    ],
  ],
  [
    "a go that fails",
    (world) => replace(world, "go", "echo 'go: cannot find GOROOT directory' >&2; exit 2"),
    [
      "problem go: Cannot run go: exit code 2: cannot find GOROOT directory",
      "Install Go from https://go.dev/dl/, or set KO_GO_PATH to the program.",
    ],
  ],
  [
    "a go that is a script",
    (world) =>
      replace(world, "go", `test "$1" = env || PATH= exec ${Bun.which("go")} "$@"\nexec ${Bun.which("go")} "$@"`),
    [
      "note go: $GO at $DIR/bin/go, a script: ko cannot tell what it does, so each build compiles anew",
      "export KO_GO_PATH=/usr/local/go/bin/go",
    ],
  ],
  [
    "a module that wants a newer go, which may not be fetched",
    ({ env, tree }) => {
      tree.write({ "work/go.mod": "module example.com/app\n\ngo 1.99\n" });
      env["GOTOOLCHAIN"] = "local";
    },
    [
      "problem module: go.mod requires go >= 1.99 (running $GO; GOTOOLCHAIN=local)",
      "Let go fetch that version: GOTOOLCHAIN=auto",
    ],
  ],
  [
    "a module that wants a newer go, which go fetches",
    ({ env, tree }) => {
      tree.write({ "work/go.mod": "module example.com/app\n\ngo 1.99\n" });
      env["GOTOOLCHAIN"] = "auto";
    },
    [
      "note module: go.mod requires go >= 1.99 (running $GO): go fetches 1.99, as GOTOOLCHAIN=auto says",
      "Install it beforehand: go install golang.org/dl/go1.99@latest",
    ],
  ],
  [
    "a broken go.mod",
    { files: { "work/go.mod": "module example.com/app\n\nrequires x\n" } },
    ["problem module: errors parsing go.mod: go.mod:3: unknown directive: requires", "Correct the go.mod file."],
  ],
  [
    "-toolexec in GOFLAGS",
    { env: { GOFLAGS: "-toolexec=/bin/true" } },
    [
      "problem go: Cannot use -toolexec in the environment variable GOFLAGS: it runs any program in place of the Go compiler",
      "Take -toolexec out.",
    ],
  ],
  [
    "no go.mod",
    ({ tree }) => void Bun.spawnSync(["rm", tree.at("work/go.mod")]),
    [
      "note module: there is no go.mod in the working directory or above",
      "Run ko where the go.mod file is, or make one: go mod init",
    ],
  ],
  [
    "no git",
    (world) => remove(world, "git"),
    [
      "note git: it is not on PATH: programs get no commit, templates no .Git",
      "Install git, or add its directory to PATH.",
    ],
  ],
  [
    "a work tree of another user",
    ({ env, tree }) => {
      tree.write({ "home/.gitconfig": "" });
      env["GIT_TEST_ASSUME_DIFFERENT_OWNER"] = "1";
    },
    [
      "problem git: $GIT at $DIR/bin/git cannot read \"$DIR/work\": detected dubious ownership in repository at '$DIR/work'",
      "git config --global --add safe.directory $DIR/work",
    ],
  ],
  [
    "no kubectl",
    (world) => remove(world, "kubectl"),
    [
      "note kubectl: it is not on PATH: ko apply, create, delete and run need it",
      "Install kubectl (https://kubernetes.io/docs/tasks/tools/), or add its directory to PATH.",
    ],
  ],
  [
    "a wrong context",
    (world) => useKubectl(world, kubeconfig(api.url, "production")),
    ["problem kubectl: $DIR/bin/kubectl: cannot locate context production", "kubectl config get-contexts"],
  ],
  [
    "no context",
    (world) => useKubectl(world, ""),
    [
      "note kubectl: $KUBECTL at $DIR/bin/kubectl has no context, and so no cluster: ko apply, create, delete and run need one",
      "kubectl config use-context NAME, or pass --context NAME",
    ],
  ],
  [
    "a kubeconfig that does not exist",
    (world) => {
      useKubectl(world);
      world.env["KUBECONFIG"] = world.tree.at("home/none");
    },
    [
      'problem kubectl: $KUBECTL at $DIR/bin/kubectl: KUBECONFIG names "$DIR/home/none", which does not exist',
      "unset KUBECONFIG",
    ],
  ],
  [
    "a broken kubeconfig",
    (world) => useKubectl(world, "clusters: [\n"),
    [
      'problem kubectl: $DIR/bin/kubectl: error loading config file "$DIR/home/kubeconfig": yaml: line 1: did not find expected node content',
      "Correct that file, or set KUBECONFIG to another.",
    ],
  ],
  [
    "an API server that is away",
    async (world) => useKubectl(world, kubeconfig(`https://${await closedPort(world)}`)),
    [
      "problem kubectl: $KUBECTL at $DIR/bin/kubectl: context test, namespace web, the API server https://$CLOSED/ does not answer: The connection to the server $CLOSED was refused - did you specify the right host or port?",
      "Start the cluster, or choose another: kubectl config use-context NAME",
    ],
  ],
  [
    "an API server that is silent",
    (world) => {
      const view = kubeconfig("https://10.0.0.1:6443");
      replace(world, "kubectl", `test "$1" = config || exec sleep 300\necho '${view}'`);
    },
    [
      "problem kubectl: $DIR/bin/kubectl: context test, namespace web, the API server https://10.0.0.1:6443/ does not answer: no answer within 3.3 s",
      "Start the cluster, or choose another: kubectl config use-context NAME",
    ],
  ],
  [
    "a kubectl that does not answer",
    (world) => replace(world, "kubectl", "trap '' TERM; sleep 300"),
    ["problem kubectl: $DIR/bin/kubectl: no answer within 3.3 s", "kubectl version"],
  ],
  [
    "an API server with a certificate of a stranger",
    async (world) => {
      world.tree.write({ tls: null });
      const { server } = await makeAuthority(world.tree.at("tls"));
      useKubectl(world, kubeconfig(`https://${serveTls(world, server, "$TLS")}`));
    },
    [
      "problem kubectl: $KUBECTL at $DIR/bin/kubectl: context test, namespace web, the API server https://$TLS/ does not answer: Unable to connect to the server: tls: failed to verify certificate: x509: certificate signed by unknown authority",
      "Get the kubeconfig of that cluster anew, or choose another: kubectl config use-context NAME",
    ],
  ],
  [
    "a dead daemon",
    ({ env, tree }) => void (env["DOCKER_HOST"] = `unix://${tree.at("run/none.sock")}`),
    [
      'problem docker: Cannot talk to the Docker daemon at "unix://$DIR/run/none.sock" (DOCKER_HOST): there is no such socket',
      "Start it (systemctl start docker, colima start, …), or correct DOCKER_HOST.",
    ],
  ],
  [
    "a DOCKER_HOST that is no address",
    { env: { DOCKER_HOST: "docker.example.com" } },
    [
      'problem docker: Cannot use "docker.example.com" from DOCKER_HOST as a Docker daemon: wanted unix:///path, tcp://host:port or ssh://user@host',
    ],
  ],
  [
    "a DOCKER_HOST with a password",
    { env: { DOCKER_HOST: "tcp://joe:canary-secret@127.0.0.1:2375" } },
    [
      'problem docker: Cannot use "tcp://…@127.0.0.1:2375" from DOCKER_HOST as a Docker daemon: it holds a user name or a password',
    ],
  ],
  [
    "a daemon that does not answer",
    (world) => void (world.env["DOCKER_HOST"] = `tcp://${listenSilently(world, "$SILENT")}`),
    ["problem docker: the daemon did not answer within 4 s", "docker info"],
  ],
  [
    "a docker context that does not exist",
    ({ env }) => {
      delete env["DOCKER_HOST"];
      env["DOCKER_CONTEXT"] = "colima";
    },
    [
      'problem docker: Cannot find the docker context "colima" of DOCKER_CONTEXT: there is no "$DIR/home/.docker/contexts/meta/f24fd3749c1368328e2b149bec149cb6795619f244c5b584e844961215dadd16/meta.json"',
      "docker context ls",
    ],
  ],
  [
    "KO_DOCKER_REPO=kind.local without a cluster",
    { env: { KO_DOCKER_REPO: "kind.local" } },
    [
      "problem clusters: Cannot look for the nodes of kind: there is no docker, nerdctl, finch, podman on PATH",
      "Install docker, or add its directory to PATH.",
    ],
  ],
  [
    "a docker that cannot reach its daemon, for KO_DOCKER_REPO=k3d.local",
    (world) => {
      world.env["KO_DOCKER_REPO"] = "k3d.local";
      replace(world, "docker", "echo 'Cannot connect to the Docker daemon' >&2; exit 1");
    },
    [
      "problem clusters: Cannot look for the nodes of k3d: Cannot connect to the Docker daemon: Cannot run docker: exit code 1",
      "docker ps",
    ],
  ],
  [
    "a broken .ko.yaml",
    { files: { "work/.ko.yaml": "defaultBaseImage: [a\n" } },
    [
      "problem config: Cannot read .ko.yaml:2:1: Flow sequence in block collection must be sufficiently indented and end with a ]",
      "Correct it: docs/configuration.md has every key.",
    ],
  ],
  [
    "a .ko.yaml with two mistakes",
    { files: { "work/.ko.yaml": "defaultBaseImage: [a]\ndefaultPlatforms: {a: b}\n" } },
    [
      "problem config: Cannot read .ko.yaml:1:19: defaultBaseImage is a list, wanted a string",
      "Correct it: docs/configuration.md has every key.",
      "problem config: Cannot read .ko.yaml:2:19: defaultPlatforms is a map, wanted a list of strings",
      "Correct it: docs/configuration.md has every key.",
    ],
  ],
  [
    "a KO_CONFIG_PATH that does not exist",
    ({ env, tree }) => void (env["KO_CONFIG_PATH"] = tree.at("none")),
    [
      'problem config: Cannot use KO_CONFIG_PATH="$DIR/none": it does not exist, wanted a file or a directory with a .ko.yaml',
      "Correct it: docs/configuration.md has every key.",
    ],
  ],
  [
    "an unknown key in .ko.yaml",
    { files: { "work/.ko.yaml": "defaultBaseImage: scratch\nfoo: 1\n" } },
    ['note config: .ko.yaml:2:1: "foo" has no effect, it is not a setting of ko'],
  ],
  [
    "no KO_DOCKER_REPO",
    ({ env }) => void delete env["KO_DOCKER_REPO"],
    [
      "note repository: KO_DOCKER_REPO is not set: there is no registry to push to",
      "export KO_DOCKER_REPO=registry.example.com/me, or pass -L for the local daemon",
    ],
  ],
  [
    "a KO_DOCKER_REPO with a scheme",
    { env: { KO_DOCKER_REPO: "https://registry.example.com/team" } },
    [
      'problem repository: Cannot use KO_DOCKER_REPO="https://registry.example.com/team": it is a URL, leave out "https://"',
      "export KO_DOCKER_REPO=registry.example.com/team",
    ],
  ],
  [
    "a KO_DOCKER_REPO in upper case",
    { env: { KO_DOCKER_REPO: "registry.example.com/Team" } },
    [
      'problem repository: Cannot use KO_DOCKER_REPO="registry.example.com/Team": "Team" has an upper-case letter, repository names are lower case',
      "export KO_DOCKER_REPO=registry.example.com/me",
    ],
  ],
  [
    "a KO_DOCKER_REPO with a password",
    { env: { KO_DOCKER_REPO: "joe:canary-secret@registry.example.com/team" } },
    [
      'problem repository: Cannot use KO_DOCKER_REPO: it holds an "@", a name without user, password or digest is wanted',
      "Put credentials into the Docker config file: ko login HOST -u USER --password-stdin",
    ],
  ],
  [
    "a registry that refuses the password",
    ({ tree }) => tree.write({ "home/.docker/config.json": dockerConfig(registry.host, "canary-wrong") }),
    [
      'problem registry: Cannot use $REGISTRY: GET http://$REGISTRY/v2/team/ko-doctor/manifests/latest answered 401 (UNAUTHORIZED: authentication required), with the credential from auths entry "$REGISTRY" in $DIR/home/.docker/config.json',
      "Log in: ko login $REGISTRY -u USER --password-stdin",
    ],
  ],
  [
    "a registry without a credential",
    { files: { "home/.docker/config.json": "{}" } },
    [
      "problem registry: Cannot use $REGISTRY: GET http://$REGISTRY/v2/team/ko-doctor/manifests/latest answered 401 (UNAUTHORIZED: authentication required), without a credential: there is none for $REGISTRY in $DIR/home/.docker/config.json",
      "Log in: ko login $REGISTRY -u USER --password-stdin",
    ],
  ],
  [
    "a registry that forbids the repository",
    (world) => refuse(world, 403, '{"errors":[{"code":"DENIED","message":"joe may not push"}]}'),
    [
      'problem registry: Cannot use $PROXY: GET http://$PROXY/v2/team/ko-doctor/manifests/latest answered 403 (DENIED: joe may not push), with the credential from auths entry "$PROXY" in $DIR/home/.docker/config.json',
      "Log in as a user who may push to $PROXY/team, or create the repositories there first: ko login $PROXY -u USER --password-stdin",
    ],
  ],
  [
    "a token server that leaves out the right to push",
    async (world) => {
      const proxy = world.stack.use(await FaultProxy.start(registry.host));
      proxy.rules = [{ path: /manifests/, fault: { kind: "answer", status: 404 } }];
      const encode = (value: object): string => Buffer.from(JSON.stringify(value)).toString("base64url");
      const access = [{ type: "repository", name: "team/ko-doctor", actions: ["pull"] }];
      proxy.demand = { kind: "bearer", prefix: `${encode({ alg: "none" })}.${encode({ access })}.canary-signature` };
      world.names.set(proxy.host, "$PROXY");
      world.env["KO_DOCKER_REPO"] = `${proxy.host}/team`;
      world.tree.write({ "home/.docker/config.json": dockerConfig(proxy.host) });
    },
    [
      'problem registry: $PROXY answers, but the credential from auths entry "$PROXY" in $DIR/home/.docker/config.json may not push to $PROXY/team/ko-doctor',
      "Log in as a user who may: ko login $PROXY -u USER --password-stdin",
    ],
  ],
  [
    "a token server that refuses the password",
    async (world) => {
      const proxy = world.stack.use(await FaultProxy.start(registry.host));
      proxy.demand = { kind: "bearer", credential: { username: "joe", password: "another" } };
      world.names.set(proxy.host, "$PROXY");
      world.env["KO_DOCKER_REPO"] = `${proxy.host}/team`;
      world.tree.write({ "home/.docker/config.json": dockerConfig(proxy.host) });
    },
    [
      'problem registry: Cannot use $PROXY: get a token for $PROXY: GET http://$PROXY/token?service=test%2C%20%22registry%22&scope=repository%3Ateam%2Fko-doctor%3Apush%2Cpull answered 401 (UNAUTHORIZED), with the credential from auths entry "$PROXY" in $DIR/home/.docker/config.json',
      "Log in: ko login $PROXY -u USER --password-stdin",
    ],
  ],
  [
    "a token server that takes anyone, and no credential",
    async (world) => {
      const proxy = world.stack.use(await FaultProxy.start(registry.host));
      proxy.rules = [{ path: /manifests/, fault: { kind: "answer", status: 404 } }];
      proxy.demand = { kind: "bearer" };
      world.names.set(proxy.host, "$PROXY");
      world.env["KO_DOCKER_REPO"] = `${proxy.host}/team`;
    },
    [
      "note registry: $PROXY answers, but there is no credential for a push: there is none for $PROXY in $DIR/home/.docker/config.json",
      "Log in: ko login $PROXY -u USER --password-stdin",
    ],
  ],
  [
    "a registry that is out of order",
    (world) => refuse(world, 503, "down for maintenance"),
    [
      "problem registry: Cannot use $PROXY: GET http://$PROXY/v2/team/ko-doctor/manifests/latest answered 503 (down for maintenance)",
      "Check KO_DOCKER_REPO, and whether that registry runs.",
    ],
  ],
  [
    "an unknown registry",
    { env: { KO_DOCKER_REPO: "registry.invalid/team" } },
    [
      "problem registry: Cannot use registry.invalid: GET https://registry.invalid/v2/: the host name is not known (ENOTFOUND)",
      "Check the name of the registry.",
    ],
  ],
  [
    "a registry that does not run",
    async (world) => void (world.env["KO_DOCKER_REPO"] = `${await closedPort(world)}/team`),
    [
      "problem registry: Cannot use $CLOSED: GET http://$CLOSED/v2/: nothing listens there (ECONNREFUSED)",
      "Is $CLOSED running? Start it, or correct its name.",
    ],
  ],
  [
    "a registry that is silent",
    (world) => void (world.env["KO_DOCKER_REPO"] = `${listenSilently(world, "$SILENT")}/team`),
    ["problem registry: $SILENT did not answer within 3.5 s", "Check KO_DOCKER_REPO, and whether that registry runs."],
  ],
  [
    "a registry with a certificate of a stranger",
    async (world) => {
      world.tree.write({ tls: null });
      const { server } = await makeAuthority(world.tree.at("tls"));
      world.env["KO_DOCKER_REPO"] = `${serveTls(world, server, "$TLS")}/team`;
    },
    [
      "problem registry: Cannot use $TLS: GET https://$TLS/v2/: its certificate is not trusted (UNABLE_TO_GET_ISSUER_CERT_LOCALLY)",
      "Set SSL_CERT_FILE to the CA's PEM file, or ca of $TLS in registries of .ko.yaml. --insecure-registry checks nothing.",
    ],
  ],
  [
    "a registry with an expired certificate",
    async (world) => {
      world.tree.write({ tls: null });
      const certificate = await makeCertificate(world.tree.at("tls"));
      const key = world.tree.at("tls/key.pem");
      const old = world.tree.at("tls/old.pem");
      Bun.spawnSync(["openssl", "x509", "-in", certificate, "-signkey", key, "-days", "-1", "-out", old], {
        stderr: "ignore",
      });
      const tls = { cert: readFileSync(old, "utf8"), key: readFileSync(key, "utf8") };
      world.env["KO_DOCKER_REPO"] = `${serveTls(world, tls, "$TLS")}/team`;
      world.env["SSL_CERT_FILE"] = old;
    },
    [
      "problem registry: Cannot use $TLS: GET https://$TLS/v2/: its certificate has expired (CERT_HAS_EXPIRED)",
      "Check the clock of this machine: date",
    ],
  ],
  [
    "a proxy that is away",
    async (world) => {
      world.env["HTTPS_PROXY"] = `http://joe:canary-secret@${await closedPort(world)}`;
      world.env["KO_DOCKER_REPO"] = "registry.invalid/team";
    },
    [
      "problem registry: Cannot use registry.invalid: GET https://registry.invalid/v2/: nothing listens there through the proxy $CLOSED (ECONNREFUSED)",
      "Check HTTPS_PROXY and NO_PROXY.",
    ],
  ],
  [
    "a proxy that wants a password",
    (world) => {
      const server = Bun.listen({
        hostname: "127.0.0.1",
        port: 0,
        socket: {
          data: (socket) => {
            socket.end("HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n");
          },
        },
      });
      world.stack.defer(() => server.stop(true));
      world.names.set(`127.0.0.1:${server.port}`, "$PROXY");
      world.env["HTTPS_PROXY"] = `127.0.0.1:${server.port}`;
      world.env["KO_DOCKER_REPO"] = "registry.invalid/team";
    },
    [
      "problem registry: Cannot use registry.invalid: GET https://registry.invalid/v2/: the proxy $PROXY wants a user and a password (407)",
      "Set HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT",
    ],
  ],
  [
    "a proxy that is no URL",
    { env: { HTTP_PROXY: "ftp://proxy.example.com" } },
    [
      "problem proxy: Cannot use HTTP_PROXY: it is not the URL of an HTTP or SOCKS5 proxy",
      "export HTTP_PROXY=http://HOST:PORT",
    ],
  ],
  [
    "ALL_PROXY",
    { env: { ALL_PROXY: "socks5://joe:canary-secret@127.0.0.1:1080" } },
    ["note proxy: ALL_PROXY has no effect on ko and go", "export HTTPS_PROXY=$ALL_PROXY HTTP_PROXY=$ALL_PROXY"],
  ],
  [
    "an SSL_CERT_FILE that does not exist",
    ({ env, tree }) => void (env["SSL_CERT_FILE"] = tree.at("none.pem")),
    ['problem certificates: SSL_CERT_FILE names "$DIR/none.pem": it does not exist', "unset SSL_CERT_FILE"],
  ],
  [
    "an SSL_CERT_FILE without a certificate",
    ({ env, tree }) => {
      tree.write({ "empty.pem": "", certificates: null });
      env["SSL_CERT_FILE"] = tree.at("empty.pem");
      env["SSL_CERT_DIR"] = tree.at("certificates");
    },
    [
      "problem certificates: there is no certificate in SSL_CERT_FILE=$DIR/empty.pem, SSL_CERT_DIR=$DIR/certificates",
      "unset SSL_CERT_FILE SSL_CERT_DIR",
    ],
  ],
  [
    "a helper of credentials that is missing",
    ({ tree }) => {
      const config = { credHelpers: { [registry.host]: "canary" } };
      tree.write({ "home/.docker/config.json": JSON.stringify(config) });
    },
    [
      'problem registry: Cannot get credentials for "$REGISTRY" from docker-credential-canary (credHelpers["$REGISTRY"] in $DIR/home/.docker/config.json): the program is not on PATH',
      "Install docker-credential-canary, or remove it from the configuration.",
    ],
  ],
  [
    "a helper of credentials that hangs",
    (world) => {
      replace(world, "docker-credential-canary", "trap '' TERM; sleep 300");
      world.tree.write({ "home/.docker/config.json": '{"credsStore":"canary"}' });
    },
    [
      'problem registry: Cannot get credentials for "$REGISTRY" from docker-credential-canary (credsStore in $DIR/home/.docker/config.json): Cannot run $DIR/bin/docker-credential-canary: no answer within 2.5 s',
      "To see its output: echo $REGISTRY | docker-credential-canary get",
    ],
  ],
  [
    "a base that is away",
    async (world) => void (world.env["KO_DEFAULTBASEIMAGE"] = `${await closedPort(world)}/base:1`),
    [
      'problem base: Cannot read base "$CLOSED/base:1": GET http://$CLOSED/v2/: nothing listens there (ECONNREFUSED)',
      "Is $CLOSED running? Start it, or correct its name.",
    ],
  ],
  [
    "a base that does not exist",
    ({ env }) => void (env["KO_DEFAULTBASEIMAGE"] = `${registry.host}/none:1`),
    [
      'problem base: Cannot read base "$REGISTRY/none:1": GET http://$REGISTRY/v2/none/manifests/1 answered 404 (MANIFEST_UNKNOWN: manifest unknown), with the credential from auths entry "$REGISTRY" in $DIR/home/.docker/config.json',
      "Check the name and the tag of the image.",
    ],
  ],
  [
    "a base in a layout that does not exist",
    { env: { KO_DEFAULTBASEIMAGE: "oci:none" } },
    [
      'problem base: Cannot read OCI layout "$DIR/work/none": there is no file oci-layout in it, so it is not an OCI layout',
      "Choose another base: defaultBaseImage in .ko.yaml, KO_DEFAULTBASEIMAGE.",
    ],
  ],
  [
    "a KOCACHE that is a file",
    ({ env, tree }) => void (env["KOCACHE"] = tree.at("work/main.go")),
    [
      'problem cache: "$DIR/work/main.go" cannot be used, so each build is a full build: "$DIR/work/main.go" is not a folder',
      "Set KOCACHE to a folder that you can write to.",
    ],
  ],
  [
    "a cache that others can write to",
    ({ env, tree }) => {
      tree.write({ "cache/v1": null });
      chmodSync(tree.at("cache/v1"), 0o777);
      env["KOCACHE"] = tree.at("cache");
    },
    [
      "problem cache: \"$DIR/cache\" cannot be used, so each build is a full build: other users may write to it. If they have not done so, type: chmod go-w '$DIR/cache/v1' (or remove it: ko cache clean)",
      "Set KOCACHE to a folder that you can write to.",
    ],
  ],
  [
    "a cache that is off",
    { env: { KOCACHE: "off" } },
    ["note cache: it is off (KOCACHE=off), so each build is a full build", "unset KOCACHE"],
  ],
  [
    "a limit that is no size",
    { env: { KO_CACHE_MAX: "lots" } },
    [
      'problem cache: Cannot use KO_CACHE_MAX="lots": a size such as 10GB, 500MiB or 0 is wanted',
      "export KO_CACHE_MAX=10GB",
    ],
  ],
  [
    "a TMPDIR that does not exist",
    ({ env, tree }) => void (env["TMPDIR"] = tree.at("none")),
    [
      'problem temporary: "$DIR/none" cannot be written to: there is no such folder',
      "Set TMPDIR to a folder that can be written to.",
    ],
  ],
  [
    "low limits of inotify",
    { files: { "inotify/max_user_watches": "4096\n", "inotify/max_user_instances": "64\n" } },
    [
      "note inotify: 4096 watches, 64 instances for each user: few for ko -W, which polls the folders that are left over",
      "sudo sysctl fs.inotify.max_user_watches=524288 fs.inotify.max_user_instances=1024",
    ],
  ],
];

const DISK_ROWS: readonly Row[] = [
  [
    "a read-only cache",
    (world) => {
      world.tree.write({ cache: null });
      mount(world, "cache", "ro,size=1m");
      world.env["KOCACHE"] = world.tree.at("cache");
    },
    [
      "problem cache: \"$DIR/cache\" cannot be used, so each build is a full build: EROFS: read-only file system, access '$DIR/cache'",
      "Set KOCACHE to a folder that you can write to.",
    ],
  ],
  [
    "a full disk for temporary files",
    (world) => mount(world, "tmp", "size=1m"),
    ["problem temporary: $DIR/tmp, only 1.0 MB free", "Make room there, or set TMPDIR to a folder on another disk."],
  ],
  [
    "a full disk of the cache",
    (world) => {
      world.tree.write({ cache: null });
      mount(world, "cache", "size=2m,mode=700");
      world.env["KOCACHE"] = world.tree.at("cache");
    },
    [
      "problem cache: $DIR/cache: 0 B of at most 210 kB, only 2.1 MB free",
      "Make room there: ko cache clean; or set KOCACHE to a folder on another disk.",
    ],
  ],
  [
    "a disk with little room",
    (world) => mount(world, "tmp", "size=500m"),
    ["note temporary: $DIR/tmp, only 524 MB free", "Make room there, or set TMPDIR to a folder on another disk."],
  ],
];

describe.skipIf(programs === undefined)("ko doctor", () => {
  test("has nothing to say about a sound machine", async () => {
    await using world = await makeWorld();
    const report = await world.run();
    expect(complaints(world, report)).toEqual([]);
  });

  test.each([...ROWS, ...(canMount ? DISK_ROWS : [])])("with %s", async (_name, broken, lines) => {
    await using world = await makeWorld();
    if (typeof broken === "function") await broken(world);
    else {
      Object.assign(world.env, broken.env);
      world.tree.write(broken.files ?? {});
    }
    const report = await world.run();
    expect(complaints(world, report)).toEqual([...lines]);
    expect(JSON.stringify(report)).not.toContain("canary-");
  });
});

/** All files below a folder, with their sizes and times. */
function snapshot(folder: string): readonly string[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .sort()
    .map((name) => {
      const { mode, mtimeMs, size } = lstatSync(join(folder, name));
      return `${name} ${mode} ${size} ${mtimeMs}`;
    });
}

describe.skipIf(programs === undefined)("ko doctor as a command", () => {
  const hanging = (marker: string): string => `trap '' TERM; echo >> ${marker}; sleep 300`;

  test("prints a line for each subject, writes nothing and pushes nothing", async () => {
    await using world = await makeWorld();
    const { env, tree } = world;
    useKubectl(world);
    const before = [snapshot(tree.path), snapshot(registry.data)];
    const { code, stderr, stdout } = await runKoHere(["doctor"], { cwd: tree.at("work"), env });
    expect([snapshot(tree.path), snapshot(registry.data)]).toEqual(before);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    const lines = stdout.trimEnd().split("\n");
    expect(lines.at(-1)).toBe("0 problems, 0 notes");
    const subjects =
      "ko go module git kubectl docker clusters config repository registry base cache temporary inotify proxy certificates";
    expect(lines.slice(0, -1).map((line) => line.split(/ +/).slice(0, 2).join(" "))).toEqual(
      subjects.split(" ").map((name) => `ok ${name}`),
    );
    expect(stdout).toContain(
      `ok       registry      ${registry.host} answers, and takes the credential from auths entry "${registry.host}" in ${tree.at("home/.docker/config.json")}\n`,
    );
  });

  test("prints a hint below its line, and exits with 1", async () => {
    await using world = await makeWorld();
    world.env["KO_DOCKER_REPO"] = "https://registry.example.com";
    const { code, stdout } = await runKoHere(["doctor"], { cwd: world.tree.at("work"), env: world.env });
    expect(code).toBe(1);
    expect(stdout).toContain(
      `problem  repository    Cannot use KO_DOCKER_REPO="https://registry.example.com": it is a URL, leave out "https://"\n` +
        `                       export KO_DOCKER_REPO=registry.example.com\n`,
    );
    expect(stdout).toEndWith("\n1 problem, 0 notes\n");
  });

  test("prints JSON that fits its schema", async () => {
    await using world = await makeWorld();
    const { env, tree } = world;
    delete env["KO_DOCKER_REPO"];
    const { code, stdout } = await runKoHere(["doctor", "--json"], { cwd: tree.at("work"), env });
    const report: Report = JSON.parse(stdout);
    expect(validate(report) ? [] : validate.errors).toEqual([]);
    expect(code).toBe(0);
    expect(report).toMatchObject({ version: 1, problems: 0, notes: 1 });
    const facts = Object.fromEntries(report.findings.map(({ facts: some, name }) => [name, some]));
    expect(facts).toMatchObject({
      module: { path: "example.com/app", file: tree.at("work/go.mod") },
      kubectl: { context: "test", namespace: "web", server: `${api.url}/`, serverVersion: "v1.36.1" },
      docker: { url: env["DOCKER_HOST"], source: "DOCKER_HOST", apiVersion: "1.47", platform: "linux/amd64" },
      config: { file: tree.at("work/.ko.yaml") },
      base: { image: "ko.builtin/static" },
      cache: { place: tree.at("home/.cache/ko"), size: 0 },
      temporary: { folder: tree.at("tmp") },
    });
  });

  test("takes -L, --insecure-registry and the flags of kubectl", async () => {
    await using world = await makeWorld();
    const { env, tree } = world;
    useKubectl(world, kubeconfig(api.url, "production"));
    const args = ["doctor", "--json", "-L", "--context", "test"];
    const { stdout } = await runKoHere(args, { cwd: tree.at("work"), env });
    expect(JSON.parse(stdout)).toMatchObject({ problems: 0, notes: 0 });
    expect(stdout).toContain('"images go to ko.local, into the local daemon"');
    expect(stdout).not.toContain(registry.host + "/team");

    tree.write({ tls: null });
    const { server } = await makeAuthority(tree.at("tls"));
    env["KO_DOCKER_REPO"] = serveTls(world, server, "$TLS");
    const insecure = await runKoHere([...args.slice(0, 2), "--insecure-registry", "--context=test"], {
      cwd: tree.at("work"),
      env,
    });
    expect(insecure.stdout).toContain(`"${env["KO_DOCKER_REPO"]} answers, and asks for no credential"`);
  });

  test("shows no secret: as text, as JSON, with -v", async () => {
    await using world = await makeWorld();
    const { env, tree } = world;
    const secrets = { GITHUB_TOKEN: "canary-github", AWS_SECRET_ACCESS_KEY: "canary-aws", KO_SECRET: "canary-other" };
    const proxies = { HTTPS_PROXY: `http://joe:canary-proxy@127.0.0.1:1`, ALL_PROXY: "socks5://joe:canary-all@x:1" };
    Object.assign(env, secrets, proxies, { NO_PROXY: "127.0.0.1" });
    const helper = `cat > /dev/null; echo canary-stderr >&2; echo '{"Username":"joe","Secret":"${PASSWORD}"}'`;
    world.tree.write({ "bin/cat": { link: Bun.which("cat") ?? "" } });
    replace(world, "docker-credential-canary", helper);
    tree.write({ "home/.docker/config.json": '{"credsStore":"canary"}' });
    for (const args of [[], ["--json"], ["-v"], ["-v", "--json", "--token=canary-token"]]) {
      const { stderr, stdout } = await runKoHere(["doctor", ...args], { cwd: tree.at("work"), env });
      expect(stdout).toContain("takes the credential from docker-credential-canary (credsStore in");
      expect(stdout + stderr).not.toContain("canary-password");
      expect((stdout + stderr).replaceAll("docker-credential-canary", "")).not.toMatch(/canary-(?!credential)/);
      expect(stdout + stderr).not.toContain(login(PASSWORD));
    }
  });

  test("ends in time when everything hangs, and leaves no process", async () => {
    await using world = await makeWorld();
    const { env, tree } = world;
    for (const name of ["go", "git", "kubectl", "docker", "minikube", "docker-credential-canary"]) {
      replace(world, name, hanging(tree.at("started")));
    }
    const silent = listenSilently(world, "$SILENT");
    tree.write({ "home/.docker/config.json": '{"credsStore":"canary"}', started: "" });
    Object.assign(env, {
      DOCKER_HOST: `tcp://${silent}`,
      KO_DEFAULTBASEIMAGE: `${silent}/base`,
      KO_TEST_DOCTOR: tree.path,
    });
    const begun = performance.now();
    const result = await runToEnd([...ourCommand(), "doctor", "--json"], { cwd: tree.at("work"), env });
    const report: Report = JSON.parse(result.stdout);
    expect(complaints(world, report)).toEqual([
      "problem go: go did not answer within 4 s",
      "Install Go from https://go.dev/dl/, or set KO_GO_PATH to the program.",
      "problem git: git did not answer within 4 s",
      "problem kubectl: $DIR/bin/kubectl: no answer within 3.3 s",
      "kubectl version",
      "problem docker: the daemon did not answer within 4 s",
      "docker info",
      "note clusters: one of kind, k3d and minikube did not answer within 4 s",
      "docker ps",
      'problem registry: Cannot get credentials for "$REGISTRY" from docker-credential-canary (credsStore in $DIR/home/.docker/config.json): Cannot run $DIR/bin/docker-credential-canary: no answer within 2.5 s',
      "To see its output: echo $REGISTRY | docker-credential-canary get",
      "problem base: $SILENT/base did not answer within 3.5 s",
      "Choose another base: defaultBaseImage in .ko.yaml, KO_DEFAULTBASEIMAGE.",
    ]);
    expect(result.code).toBe(1);
    expect(performance.now() - begun).toBeLessThan(60_000);
    expect(await survivorsWith("KO_TEST_DOCTOR", tree.path)).toEqual([]);
  });

  test.skipIf(!canMount)("a silent name server holds up nothing else", async () => {
    await using world = await makeWorld();
    const { env, stack, tree } = world;
    const server = await Bun.udpSocket({ hostname: "127.0.0.9", port: 53, socket: { data() {} } });
    stack.defer(() => server.close());
    // Longer than any patience of ours.
    tree.write({ "resolv.conf": "nameserver 127.0.0.9\noptions timeout:30 attempts:2\n" });
    Object.assign(env, { KO_DOCKER_REPO: "registry.example.com", KO_DEFAULTBASEIMAGE: "base.example.com/base" });
    const bind = `mount --bind ${tree.at("resolv.conf")} /etc/resolv.conf && exec "$@"`;
    const path = { PATH: `${env["PATH"]}:${process.env["PATH"]}` };
    const argv = ["unshare", "-m", "sh", "-c", bind, "sh", "env", `PATH=${env["PATH"]}`, ...ourCommand()];
    const begun = performance.now();
    const { stdout } = await runToEnd([...argv, "doctor", "--json"], {
      cwd: tree.at("work"),
      env: { ...env, ...path },
    });
    expect(complaints(world, JSON.parse(stdout)).filter((line) => /^(?:problem|note)/.test(line))).toEqual([
      "problem registry: registry.example.com did not answer within 3.5 s",
      "problem base: base.example.com/base did not answer within 3.5 s",
    ]);
    expect(performance.now() - begun).toBeLessThan(28_000);
  });

  test("ends at once by Ctrl-C, without a line, and leaves no process", async () => {
    await using world = await makeWorld();
    const { env, tree } = world;
    for (const name of ["go", "kubectl"]) replace(world, name, hanging(tree.at("started")));
    tree.write({ started: "" });
    env["KO_TEST_DOCTOR"] = tree.path;
    const running = start([...ourCommand(), "doctor"], { cwd: tree.at("work"), env });
    await waitUntil(() => readFileSync(tree.at("started"), "utf8").length >= 3, running);
    process.kill(running.pid, "SIGINT");
    expect(await running.result).toEqual({ code: 130, stdout: "", stderr: "Error: interrupted by SIGINT\n" });
    expect(await survivorsWith("KO_TEST_DOCTOR", tree.path)).toEqual([]);
  });

  test.skipIf(!isRoot)("says that a socket is closed to us", async () => {
    await using world = await makeWorld();
    const { env, tree } = world;
    for (const folder of ["", "run", "work", "home", "home/.docker"]) chmodSync(tree.at(folder), 0o755);
    chmodSync(tree.at("tmp"), 0o777);
    chmodSync(tree.at("run/docker.sock"), 0o600);
    env["KOCACHE"] = "off";
    const nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"];
    const argv = [Bun.which("setpriv") ?? "", ...nobody.slice(1), ...ourCommand(), "doctor", "--json"];
    const { stdout } = await runToEnd(argv, { cwd: tree.at("work"), env });
    const report: Report = JSON.parse(stdout);
    expect(report.findings.filter(({ status }) => status === "problem")).toEqual([
      expect.objectContaining({
        name: "docker",
        message: `Cannot talk to the Docker daemon at "${env["DOCKER_HOST"]}" (DOCKER_HOST): permission denied`,
        hint: 'Get access: sudo usermod -aG docker "$USER", then log in again.',
      }),
    ]);
  });

  test("says which sockets were tried before the daemon's, or that there is none", async () => {
    await using world = await makeWorld();
    const { env, stack, tree } = world;
    delete env["DOCKER_HOST"];
    tree.write({ "home/.rd": null });
    const none = (await world.run()).findings.find(({ name }) => name === "docker");
    const wanted = await runDoctor(hostAt(tree.at("work"), { env }), {
      log: createLog("quiet", () => {}),
      kubectl: [],
      local: true,
      insecureRegistry: false,
      json: true,
    });
    stack.use(serveDaemon(tree.at("home/.rd/docker.sock")));
    const found = (await world.run()).findings.find(({ name }) => name === "docker");
    if (found?.message.includes(tree.path) !== true) {
      console.warn("skipped: this machine has a daemon of its own");
      return;
    }
    expect(none).toMatchObject({ status: "note", message: expect.stringContaining("Cannot find a Docker daemon: ") });
    expect(wanted.exitCode).toBe(1);
    expect(found).toMatchObject({
      status: "ok",
      message: expect.stringContaining(
        `unix://${tree.at("home/.rd/docker.sock")} (a well-known socket), API 1.47, linux/amd64, classic store; not "/var/run/docker.sock" (not there), `,
      ),
    });
  });

  test("finds a real daemon, a real cluster and a real registry", async () => {
    const cluster = findCounterparts(["etcd", "kube-apiserver", "kubectl"]);
    const docker = await tryStartDaemon("classic");
    if (cluster === undefined || docker === undefined) return;
    await using _daemon = docker;
    await using server = await startApiServer();
    await using world = await makeWorld();
    const { env, tree } = world;
    useKubectl(world);
    Object.assign(env, { DOCKER_HOST: `unix://${docker.socket}`, KUBECONFIG: server.kubeconfig });
    const { code, stdout } = await runKoHere(["doctor", "--json"], { cwd: tree.at("work"), env });
    const report: Report = JSON.parse(stdout);
    expect(complaints(world, report)).toEqual([]);
    expect(code).toBe(0);
    const facts = Object.fromEntries(report.findings.map(({ facts: some, name }) => [name, some]));
    expect(facts).toMatchObject({
      docker: { platform: "linux/amd64", store: "classic" },
      kubectl: { context: "test", server: `${server.url}/`, serverVersion: expect.stringMatching(/^v1\./) },
    });
    expect(existsSync(tree.at("home/.kube"))).toBe(false);
  });
});
