/**
 * The picture of a development loop in docs/watch.md, made by running one: a small shop, four edits, a real registry, a real
 * API server.
 *
 *     npm run build && npx bun test/bench/picture.ts
 */
import { startApiServer } from "../helpers/cluster.ts";
import { goMod, mainGo } from "../helpers/go.ts";
import { startRegistry } from "../helpers/registry.ts";
import { makeBench } from "../helpers/world-bench.ts";
import type { Files } from "../helpers/world-folders.ts";
import { startWatching } from "../helpers/world-watch.ts";

await using registry = await startRegistry();
await using server = await startApiServer();

const SHOP: Files = {
  "go.mod": goMod("example.com/shop"),
  "cmd/store/main.go": program("store"),
  "cmd/admin/main.go": program("admin"),
  "cmd/job/main.go": mainGo("done"),
  "pkg/web/handler.go": handler('"Hello from", name'),
  "config/store.yaml": deployment("store"),
  "config/admin.yaml": deployment("admin"),
  "config/job.yaml": deployment("job"),
};

const EDITS: readonly Files[] = [
  { "pkg/web/handler.go": handler('"Welcome to", name') },
  { "pkg/web/handler.go": handler('"Welcome to the", nam') },
  { "pkg/web/handler.go": handler('"Welcome to the", name') },
  { "config/job.yaml": deployment("job").replace("{name: job}", "{name: job, labels: {team: ops}}") },
];

using bench = makeBench(SHOP, { host: registry.host });
await using watching = startWatching(bench, ["apply", "-W", "-f", "config/"], {
  env: { KUBECONFIG: server.kubeconfig },
});
// stderr and stdout as they stand on a terminal: kubectl's lines before the line that ends a round.
const show = async (): Promise<void> => {
  const block = await watching.round();
  const lines = block.trimEnd().split("\n");
  const last = lines.pop() ?? "";
  console.log([...lines, watching.printed().trimEnd(), last].filter(Boolean).join("\n"));
};
console.log("$ ko apply -W -f config/");
await show();
console.log((await watching.said(/^watching .*\n/m)).trimEnd());
for (const files of EDITS) {
  bench.tree.write(files);
  await show();
}

function program(name: string): string {
  return `package main

import (
	"net/http"

	"example.com/shop/pkg/web"
)

func main() { _ = http.ListenAndServe(":8080", web.Handler("${name}")) }
`;
}

function handler(words: string): string {
  return `package web

import (
	"fmt"
	"net/http"
)

func Handler(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, ${words})
	})
}
`;
}

function deployment(name: string): string {
  return `apiVersion: apps/v1
kind: Deployment
metadata: {name: ${name}}
spec:
  selector: {matchLabels: {app: ${name}}}
  template:
    metadata: {labels: {app: ${name}}}
    spec: {containers: [{name: c, image: "ko://example.com/shop/cmd/${name}"}]}
`;
}
