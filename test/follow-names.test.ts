import { describe, expect, test } from "bun:test";
import { LogNames, type LogSource } from "../lib/follow-names.ts";

const pod = (image: string, revision = "1"): object => ({
  metadata: { namespace: "default", labels: { "pod-template-hash": revision } },
  spec: { containers: [{ name: "c", image }], initContainers: [{ name: "i", image }] },
});

function known(): LogNames {
  const names = new LogNames();
  names.know("r/app-1@sha256:a", "example.com/a/app");
  names.know("r/job-2:v1@sha256:b", "example.com/cmd/job");
  return names;
}

const textsOf = (sources: readonly LogSource[]): readonly string[] => sources.map((source) => source.label().text);

describe("LogNames", () => {
  test.each([
    ["r/app-1@sha256:a", true],
    ["r/app-1@sha256:older", true],
    ["r/job-2:v2", true],
    ["r/other@sha256:a", false],
    ["r:5000/app-1", false],
    ["", false],
  ])("%j is an image of ko: %p", (image, isKnown) => {
    expect(known().isKnown(image)).toBe(isKnown);
  });

  test("the program's shortest name, and a number for each replica while there are several", () => {
    const names = known();
    const add = (revision: string): LogSource =>
      names.add({ pod: pod("r/app-1@sha256:a", revision), container: "c", resource: "deployment/w", name: "w" });
    const [one, two, next] = [add("1"), add("1"), add("2")];
    // A rollout has Pods of two revisions, and one replica of each.
    expect(textsOf([one, two, next])).toEqual(["app/1", "app/2", "app"]);
    one[Symbol.dispose]();
    expect(textsOf([two])).toEqual(["app/2"]);
    expect(textsOf([add("1"), two])).toEqual(["app/1", "app/2"]);
  });

  test("the object's name if several run the same program, and the container's if one runs it twice", () => {
    const names = known();
    const add = (resource: string, container: string): LogSource =>
      names.add({ pod: pod("r/app-1@sha256:a"), container, resource: `deployment/${resource}`, name: resource });
    const blue = add("blue", "c");
    expect(textsOf([blue])).toEqual(["app"]);
    const green = [add("green", "c"), add("green", "i")];
    expect(textsOf([blue, ...green])).toEqual(["blue", "green.c", "green.i"]);
    for (const each of green) each[Symbol.dispose]();
    expect(textsOf([blue])).toEqual(["app"]);
  });

  test("the container's name if its program cannot be told", () => {
    const names = new LogNames();
    names.know("r@sha256:a", "example.com/a");
    names.know("r@sha256:b", "example.com/b");
    const add = (image: string): LogSource =>
      names.add({ pod: pod(image), container: "c", resource: "pod/x", name: "x" });
    expect(textsOf([add("r@sha256:b"), add("r@sha256:older")])).toEqual(["b/1", "c/2"]);
  });

  test("programs with the same last name are told apart, and have colours of their own", () => {
    const names = new LogNames();
    names.know("r/1", "example.com/a/web");
    names.know("r/2", "example.com/b/web");
    const labels = ["r/1", "r/2"].map((image) =>
      names.add({ pod: pod(image), container: "c", resource: image, name: image }).label(),
    );
    expect(labels).toEqual([
      { text: "a/web", colour: 0 },
      { text: "b/web", colour: 1 },
    ]);
  });
});
