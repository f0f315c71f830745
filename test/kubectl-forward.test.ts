import { describe, expect, test } from "bun:test";
import type { DebugSettings } from "../lib/image-config.ts";
import { formatAttach, forwardCommand, placeArguments, startCommand } from "../lib/kubectl-forward.ts";

const debug: DebugSettings = { isContinuing: false, port: undefined };

describe("placeArguments()", () => {
  test.each<[readonly string[], readonly string[]]>([
    [[], []],
    [
      ["--token=secret", "--context=kind", "--user=me", "-s", "https://me:secret@api", "--namespace=n"],
      ["--context=kind", "--namespace=n"],
    ],
    [
      ["-n", "web", "--kubeconfig", "k", "--password", "secret"],
      ["-n", "web", "--kubeconfig", "k"],
    ],
    [["-nweb", "--", "--context=program"], ["-nweb"]],
  ])("of %j", (words, want) => {
    expect(placeArguments(words)).toEqual([...want]);
  });
});

describe("forwardCommand()", () => {
  test.each<[Parameters<typeof forwardCommand>, string]>([
    [["pod/web", { debug }], "kubectl port-forward pod/web 40000"],
    [["pod/web", { debug: { ...debug, port: 2345 } }], "kubectl port-forward pod/web 2345"],
    [["job/x", { debug, namespace: "team" }], "kubectl port-forward -n team job/x 40000"],
    [
      ["job/x", { debug, namespace: "team", place: ["--namespace=team", "--context=a b'c"] }],
      "kubectl port-forward --namespace=team '--context=a b'\\''c' job/x 40000",
    ],
    [["job/x", { debug, namespace: "team", place: ["-n", "team"] }], "kubectl port-forward -n team job/x 40000"],
  ])("case %#", (args, want) => {
    expect(forwardCommand(...args)).toBe(want);
  });
});

describe("startCommand()", () => {
  test.each([
    ["registry.example.com/web@sha256:0", "kubectl port-forward pod/POD 40000"],
    ["kind.local/web:1", "kubectl port-forward pod/POD 40000"],
    ["ko.local/web:1", "docker run --rm -p 127.0.0.1:40000:40000 ko.local/web:1"],
  ])("for %s", (reference, want) => {
    expect(startCommand(reference, { debug })).toBe(want);
  });
});

describe("formatAttach()", () => {
  test("has each command once, and the client's", () => {
    expect(formatAttach({ importPath: "example.com/web", debug }, ["a", "a", "b"])).toBe(
      "example.com/web waits for a debugger on port 40000:\n  a\n  b\n  dlv connect localhost:40000",
    );
    expect(formatAttach({ importPath: "example.com/web", debug: { isContinuing: true, port: 1 } }, [])).toBe(
      "example.com/web runs, and takes a debugger on port 1:\n  dlv connect localhost:1",
    );
  });
});
