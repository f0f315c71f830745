/**
 * Why a Deployment does not run, on a node: each cause with a real program, the sentence of `ko apply --wait`, the time from its
 * evidence in the API to the verdict, and what `kubectl rollout status` says meanwhile. Prints Markdown for
 * docs/performance.md.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { fieldAt, listAt, numberAt, textAt } from "../../lib/json.ts";
import { goMod } from "../helpers/go.ts";
import { startWorld, type World } from "./world.ts";

interface Case {
  /** Also the name of the Deployment and of the program. */
  readonly name: string;
  readonly what: string;
  /** Go code of `main`; undefined for an image that is not ko's. */
  readonly main?: string;
  /** Fields of the container, in YAML flow style. */
  readonly container?: string;
  /** Fields of the Pod. */
  readonly pod?: string;
  readonly flags?: readonly string[];
  /** The verdict on stderr. */
  readonly says: RegExp;
  readonly code: number;
  /** Whether the API shows the cause; undefined where only the time or the readiness decides. */
  readonly isEvident?: (state: State) => boolean;
}

/** What the API has of a Deployment. */
interface State {
  /** The statuses of the containers of its Pods. */
  readonly statuses: readonly unknown[];
  readonly events: readonly unknown[];
}

const PATIENCE = 180_000;
/** Milliseconds from the evidence to the verdict. */
const LIMIT = 2000;
/** Milliseconds between two looks of the test. */
const LOOK_MS = 50;

let world: World;
const rows: string[] = [];

const waitingFor =
  (...reasons: readonly string[]) =>
  ({ statuses }: State): boolean =>
    statuses.some((status) => reasons.includes(textAt(status, "state", "waiting", "reason")));
/** Also while it runs for the third time: the wait before that may be short. */
const hasCrashedTwice = ({ statuses }: State): boolean =>
  statuses.some((status) => {
    const restarts = numberAt(status, "restartCount") ?? 0;
    return restarts > (fieldAt(status, "state", "running") === undefined ? 0 : 1);
  });

const SERVE = 'http.ListenAndServe(":8080", nil)';
const PROBE = "readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}";
const answer = (status: string): string =>
  `http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(${status}) })`;

const CASES: readonly Case[] = [
  {
    name: "missing-tag",
    what: "the tag of an image does not exist",
    says: /deployment\/missing-tag does not run: the image \S+\/none:v1 cannot be pulled: .*not found/,
    code: 1,
    isEvident: waitingFor("ErrImagePull", "ImagePullBackOff"),
  },
  {
    name: "wrong-arch",
    what: "the program is for another processor",
    main: SERVE,
    flags: ["--platform=linux/arm64"],
    says: /deployment\/wrong-arch does not run: .*\. The program is for another processor: node \S+ is linux\/amd64[^]*exec format error[^]*Build for the platform of the nodes: --platform=linux\/amd64/,
    code: 1,
    isEvident: ({ statuses }) =>
      statuses.some((status) => ["state", "lastState"].some((key) => fieldAt(status, key, "terminated") !== undefined)),
  },
  {
    name: "panic",
    what: "the program panics after 3 s",
    main: 'time.Sleep(3 * time.Second); panic("no database")',
    container: PROBE,
    says: /deployment\/panic does not run: container panic ends with exit code 2, again and again[^]*panic: no database[^]*→ cmd\/panic\/main\.go:\d+/,
    code: 1,
    isEvident: hasCrashedTwice,
  },
  {
    name: "oom",
    what: "the program needs more memory than its limit",
    main: "var all [][]byte; for { part := make([]byte, 1<<20); for i := range part { part[i] = 1 }; all = append(all, part); fmt.Sprint(len(all)) }",
    container: `resources: {limits: {memory: 32Mi}}\n          ${PROBE}`,
    says: /deployment\/oom does not run: container oom was killed because it needs more memory than its limit of 32Mi, again and again/,
    code: 1,
    isEvident: hasCrashedTwice,
  },
  {
    name: "secret",
    what: "a secret does not exist",
    main: SERVE,
    container: "envFrom: [{secretRef: {name: credentials}}]",
    says: /deployment\/secret does not run: container secret cannot be made: secret "credentials" not found/,
    code: 1,
    isEvident: waitingFor("CreateContainerConfigError"),
  },
  {
    name: "quota",
    what: "a quota allows no more Pods",
    main: SERVE,
    container: "resources: {limits: {cpu: '100'}}",
    says: /deployment\/quota does not run: .*exceeded quota/,
    code: 1,
    isEvident: ({ events }) => events.some((event) => textAt(event, "reason") === "FailedCreate"),
  },
  {
    name: "probe",
    what: "the readiness probe answers 500",
    main: `${answer("500")}; ${SERVE}`,
    container: PROBE,
    flags: ["--wait=8s"],
    says: /deployment\/probe has 0 of 1 replicas ready after 8[^]*Readiness probe failed: HTTP probe failed with statuscode: 500/,
    code: 1,
  },
  {
    name: "selector",
    what: "no node has the label, which an autoscaler may bring",
    main: SERVE,
    pod: "nodeSelector: {disk: fast}",
    flags: ["--wait=8s"],
    says: /deployment\/selector has 0 of 1 replicas ready after 8[^]*no node takes it: /,
    code: 1,
  },
  {
    name: "slow",
    what: "the program starts slowly, 25 s: no failure",
    main: `time.Sleep(25 * time.Second); ${answer("200")}; ${SERVE}`,
    container: PROBE,
    says: /deployment\/slow is ready after 2[5-9]/,
    code: 0,
  },
  {
    name: "flip",
    what: "the program is not ready for 4 s, then it is",
    main: `start := time.Now(); http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { if time.Since(start) < 4*time.Second { w.WriteHeader(500) } }); ${SERVE}`,
    container: PROBE,
    says: /deployment\/flip is ready after \d/,
    code: 0,
  },
];

beforeAll(async () => {
  const programs = CASES.flatMap(({ main, name }) =>
    main === undefined ? [] : [[`cmd/${name}/main.go`, program(main)]],
  );
  world = await startWorld({ "go.mod": goMod("example.com/causes"), ...Object.fromEntries(programs) });
  // More than the other Deployments ask for; the one of the case asks for more.
  const quota = { kind: "ResourceQuota", metadata: { name: "processors" }, spec: { hard: { "limits.cpu": "10" } } };
  await world.node.server.request("POST", "/api/v1/namespaces", { kind: "Namespace", metadata: { name: "quota" } });
  await world.node.server.request("POST", "/api/v1/namespaces/quota/resourcequotas", { apiVersion: "v1", ...quota });
});

afterAll(async () => {
  await world?.[Symbol.asyncDispose]();
  const head = ["cause", "verdict", "after its evidence", "`kubectl rollout status` then"];
  console.log([row(head), row(head.map(() => "---")), ...rows].join("\n"));
});

function row(cells: readonly string[]): string {
  return `| ${cells.join(" | ")} |`;
}

function program(main: string): string {
  return `package main

import (
	"fmt"
	"net/http"
	"time"
)

var _ = fmt.Sprint
var _ = http.StatusOK
var _ = time.Second

func main() {
	${main}
}
`;
}

function deployment({ container, main, name, pod }: Case): string {
  const image = main === undefined ? `${world.registry.host}/none:v1` : `ko://example.com/causes/cmd/${name}`;
  return `apiVersion: apps/v1
kind: Deployment
metadata: {name: ${name}, namespace: ${namespaceOf(name)}}
spec:
  selector: {matchLabels: {app: ${name}}}
  template:
    metadata: {labels: {app: ${name}}}
    spec:
      ${pod ?? "terminationGracePeriodSeconds: 0"}
      containers:
        - name: ${name}
          image: ${image}
          ${container ?? "imagePullPolicy: IfNotPresent"}
`;
}

function namespaceOf(name: string): string {
  return name === "quota" ? "quota" : "default";
}

async function look(name: string): Promise<State> {
  const { server } = world.node;
  const path = `/api/v1/namespaces/${namespaceOf(name)}`;
  const [pods, events] = await Promise.all([
    server.request("GET", `${path}/pods?labelSelector=app%3D${name}`),
    server.request("GET", `${path}/events`),
  ]);
  return {
    statuses: listAt(pods, "items").flatMap((pod) => listAt(pod, "status", "containerStatuses")),
    events: listAt(events, "items").filter((event) => textAt(event, "involvedObject", "name").startsWith(name)),
  };
}

/** When the API first showed the cause, in milliseconds; undefined if it never did. */
async function findEvidence({ isEvident, name }: Case, signal: AbortSignal): Promise<number | undefined> {
  while (isEvident !== undefined && !signal.aborted) {
    if (isEvident(await look(name))) return performance.now();
    await Bun.sleep(LOOK_MS);
  }
  return undefined;
}

test.each(CASES.map((each) => [each.what, each] as const))(
  "%s",
  async (what, each) => {
    const { code: wanted, flags = ["--wait=60s"], name, says } = each;
    world.bench.work.write({ [`${name}.yaml`]: deployment(each) });
    const wait = flags.some((flag) => flag.startsWith("--wait")) ? flags : [...flags, "--wait=60s"];
    const over = new AbortController();
    const evidence = findEvidence(each, over.signal);
    const started = performance.now();
    const args = ["apply", ...wait, "-f", world.bench.work.at(`${name}.yaml`)];
    const { code, stderr } = await world.bench.ours(args, { env: world.env });
    const told = performance.now();
    over.abort();
    expect(stderr).toMatch(says);
    expect(code).toBe(wanted);
    const seen = await evidence;
    const place = ["-n", namespaceOf(name), `deployment/${name}`];
    const status = await world.node.server.kubectl(["rollout", "status", "--timeout=1s", ...place]);
    const kubectl = (status.stdout + status.stderr).trim().split("\n").at(-1) ?? "";
    const after =
      seen === undefined
        ? `${((told - started) / 1000).toFixed(1)} s in all`
        : `${((told - seen) / 1000).toFixed(2)} s`;
    const verdict =
      stderr
        .split("\n")
        .findLast((line) => /^(?:Error: )?deployment\/\S+ .*(?:does not run| after )/.test(line))
        ?.replace(/^Error: /, "") ?? "";
    rows.push(
      row([
        what,
        `\`${verdict.replaceAll(world.registry.host, "registry.test").slice(0, 160)}\``,
        after,
        `\`${kubectl}\``,
      ]),
    );
    if (each.isEvident !== undefined) {
      expect(seen).toBeDefined();
      expect(told - (seen ?? 0)).toBeLessThan(LIMIT);
    }
    await world.node.server.kubectl(["delete", "--wait=false", ...place]);
  },
  PATIENCE,
);
