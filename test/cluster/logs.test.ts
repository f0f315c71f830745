/** `ko apply -W --logs` on a node that runs Pods: each line of a program comes once, over rollouts, restarts, cuts and swaps. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { listAt, parseJson, textAt } from "../../lib/json.ts";
import { goMod } from "../helpers/go.ts";
import { waitUntil } from "../helpers/world-programs.ts";
import { startWatching } from "../helpers/world-watch.ts";
import { startWorld, type World } from "./world.ts";

/** Counts to stdout and stderr, at first as quickly as it can; ends when it is asked to, and says so. */
const counter = (version: string): string => `package main

import (
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

func main() {
	var lock sync.Mutex
	n := 0
	count := func(lines int) {
		lock.Lock()
		defer lock.Unlock()
		for range lines {
			n++
			fmt.Println("${version}", n)
		}
	}
	count(5000)
	end := func(code int) {
		count(500)
		lock.Lock()
		fmt.Printf("${version} end")
		os.Exit(code)
	}
	crash := make(chan bool)
	http.HandleFunc("/crash", func(answer http.ResponseWriter, _ *http.Request) {
		// A request without an answer would be sent again, to the next run.
		answer.Header().Set("Content-Length", "0")
		answer.WriteHeader(200)
		http.NewResponseController(answer).Flush()
		time.AfterFunc(200*time.Millisecond, func() { close(crash) })
	})
	go http.ListenAndServe(":8080", nil)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	for {
		select {
		case <-signals:
			end(0)
		case <-crash:
			end(3)
		case <-time.After(5 * time.Millisecond):
			count(1)
		}
	}
}
`;
const YAML = `apiVersion: apps/v1
kind: Deployment
metadata: {name: counter}
spec:
  selector: {matchLabels: {app: counter}}
  template:
    metadata: {labels: {app: counter}}
    spec: {containers: [{name: c, image: ko://example.com/counter}]}
`;

let world: World;

beforeAll(async () => {
  world = await startWorld({
    "go.mod": goMod("example.com/counter", { go: "1.22" }),
    "main.go": counter("one"),
    "c.yaml": YAML,
  });
});

afterAll(() => world?.[Symbol.asyncDispose]());

/** The runs of a version: each counts from 1, without a gap. */
function runsOf(stderr: string, version: string): readonly (readonly string[])[] {
  const runs: string[][] = [];
  for (const [, text = ""] of stderr.matchAll(new RegExp(`^counter │ ${version} (.*)$`, "gm"))) {
    if (text === "1") runs.push([]);
    runs.at(-1)?.push(text);
  }
  return runs;
}

function expectWhole(run: readonly string[] | undefined, end: "end" | "cut"): void {
  const numbers = end === "end" ? run?.slice(0, -1) : run;
  expect(run?.at(-1)).toEqual(end === "end" ? "end" : expect.stringMatching(/^\d+$/));
  expect(numbers?.join()).toBe(Array.from({ length: numbers?.length ?? 0 }, (_, i) => `${i + 1}`).join());
  expect(numbers?.length).toBeGreaterThanOrEqual(5000);
}

test("a crash, a rollout", async () => {
  const { bench, env, node } = world;
  await using watching = startWatching(bench, ["apply", "-W", "--logs", "-f", "c.yaml"], { env });
  const { running } = watching;
  const has = (text: string): Promise<void> => waitUntil(() => running.stderr().includes(text), running);
  await has("counter │ one 5001\n");
  const { stdout } = await node.server.kubectl(["get", "pods", "-l", "app=counter", "-o", "json"]);
  const address = textAt(listAt(parseJson(stdout), "items")[0], "status", "podIP");
  await fetch(`http://${address}:8080/crash`, { keepalive: false });
  await has("counter │ one end\n");
  await waitUntil(() => runsOf(running.stderr(), "one").length === 2, running);
  bench.tree.write({ "main.go": counter("two") });
  await has("counter │ two 5001\n");
  await waitUntil(() => running.stderr().split("counter │ one end\n").length === 3, running);
  const { stderr } = await watching.end("SIGINT");
  const ones = runsOf(stderr, "one");
  expect(ones).toHaveLength(2);
  for (const run of ones) expectWhole(run, "end");
  expect(runsOf(stderr, "two")).toHaveLength(1);
  expectWhole(runsOf(stderr, "two")[0], "cut");
});

test("--swap: the last lines of the old program, and all of the new one", async () => {
  const { bench, env } = world;
  await using watching = startWatching(bench, ["apply", "-W", "--logs", "--swap", "-f", "c.yaml"], { env });
  const { running } = watching;
  const has = (text: string): Promise<void> => waitUntil(() => running.stderr().includes(text), running);
  await watching.said(/deployment\/counter is ready after/);
  const versions = ["three", "four", "five"];
  for (const version of versions) {
    bench.tree.write({ "main.go": counter(version) });
    await watching.said(/swapped the program in 1 Pod/);
    await has(`counter │ ${version} 5001\n`);
    await watching.said(/deployment\/counter: new program in 1 Pod after/);
  }
  await has("counter │ four end\n");
  const { stderr } = await watching.end("SIGINT");
  for (const version of versions) {
    expect(runsOf(stderr, version)).toHaveLength(1);
    expectWhole(runsOf(stderr, version)[0], version === "five" ? "cut" : "end");
  }
});
