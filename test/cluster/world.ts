/** A cluster whose node runs Pods, a registry, and a module whose programs ko builds for them. */
import { startRegistry, type TestRegistry } from "../helpers/registry.ts";
import { type Bench, makeBench } from "../helpers/world-bench.ts";
import type { Files } from "../helpers/world-folders.ts";
import { type Node, startNode } from "./node.ts";

export interface World extends AsyncDisposable {
  readonly node: Node;
  readonly registry: TestRegistry;
  readonly bench: Bench;
  /** The variables that lead ko and kubectl to the cluster. */
  readonly env: Readonly<Record<string, string>>;
}

export async function startWorld(files: Files): Promise<World> {
  await using stack = new AsyncDisposableStack();
  const [node, registry] = await Promise.all([startNode(), startRegistry()]);
  stack.use(registry);
  stack.use(node);
  const bench = stack.use(makeBench(files, { host: registry.host }));
  const closing = stack.move();
  const env = { KUBECONFIG: node.server.kubeconfig };
  return { node, registry, bench, env, [Symbol.asyncDispose]: () => closing.disposeAsync() };
}

/** A program that answers every request with a text. */
export function webServer(text: string): string {
  return `package main

import (
	"fmt"
	"net/http"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, ${JSON.stringify(text)}) })
	http.ListenAndServe(":8080", nil)
}
`;
}

/** A Deployment `web` of `example.com/web`. */
export function webDeployment({ replicas }: { readonly replicas: number }): string {
  return `apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: ${replicas}
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - name: web
          image: ko://example.com/web
          readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
`;
}
