/** The platforms of nodes, and the nodes of Pods. The real API server is asked in feature-platform-cluster.test.ts. */
import { describe, expect, test } from "bun:test";
import { ANYWHERE, listPlatforms, platformsFor, readNodes, runsPlatform } from "../lib/kubectl-nodes.ts";
import { parsePlatform } from "../lib/oci.ts";

interface Column {
  readonly labels?: object;
  readonly spec?: object;
  readonly info?: object;
}

function line(name: string, { info, labels, spec }: Column): string {
  return [name, labels, spec, info]
    .map((each) => (typeof each === "object" ? JSON.stringify(each) : (each ?? "")))
    .join("\t");
}

function node(architecture: string, more: Column = {}): string {
  return line(`node-${architecture}`, { info: { operatingSystem: "linux", architecture }, ...more });
}

function tainted(architecture: string, key: string, effect = "NoSchedule"): string {
  return node(architecture, { spec: { taints: [{ key, effect }] } });
}

describe("readNodes()", () => {
  test.each<[string, string, readonly string[]]>([
    [
      "nodes, each platform once",
      `${node("arm64")}\n${node("amd64")}\n${node("arm64")}\n`,
      ["linux/amd64", "linux/arm64"],
    ],
    [
      "labels where a kubelet has not reported yet",
      line("a", { labels: { "kubernetes.io/os": "linux", "kubernetes.io/arch": "s390x" } }),
      ["linux/s390x"],
    ],
    ["a node that says nothing", line("a", {}), []],
    ["a kernel's name", node("aarch64"), []],
    ["WebAssembly", node("wasm32-wasi"), []],
    ["bytes that a terminal should not get", node("\u001b[31m"), []],
    ["a text that is not JSON", "a\t{\t[\tnull", []],
    ["nothing", "", []],
  ])("%s", (_, text, want) => {
    expect(listPlatforms(readNodes(text))).toEqual([...want]);
  });
});

describe("platformsFor()", () => {
  const mixed = [node("amd64"), node("arm64")];

  test.each<[string, readonly string[], object, readonly string[]]>([
    ["taints that do not keep Pods away", [tainted("arm64", "pool", "PreferNoSchedule")], {}, ["linux/arm64"]],
    [
      "taints of a short time",
      [node("amd64"), tainted("arm64", "node.kubernetes.io/disk-pressure")],
      {},
      ["linux/amd64", "linux/arm64"],
    ],
    [
      "a toleration of everything",
      [node("amd64"), tainted("arm64", "pool")],
      { tolerations: [{ operator: "Exists" }] },
      ["linux/amd64", "linux/arm64"],
    ],
    [
      "a toleration of another effect",
      [node("amd64"), tainted("arm64", "pool")],
      { tolerations: [{ operator: "Exists", effect: "NoExecute" }] },
      ["linux/amd64"],
    ],
    [
      "a toleration of another value",
      [node("amd64"), tainted("arm64", "pool")],
      { tolerations: [{ key: "pool", value: "a" }] },
      ["linux/amd64"],
    ],
    [
      "a device that lets a Pod there",
      [node("amd64"), tainted("arm64", "nvidia.com/gpu")],
      { containers: [{ resources: { limits: { "nvidia.com/gpu": 1 } } }] },
      ["linux/amd64", "linux/arm64"],
    ],
    [
      "an architecture whose taint the cloud lets pass",
      [node("amd64"), tainted("arm64", "kubernetes.io/arch")],
      { nodeSelector: { "kubernetes.io/arch": "arm64" } },
      ["linux/arm64"],
    ],
    ["only tainted nodes", [tainted("arm64", "a"), tainted("amd64", "b")], {}, ["linux/amd64", "linux/arm64"]],
    [
      "fields that are no selectors",
      mixed,
      { nodeSelector: 7, affinity: [], tolerations: "x", containers: {} },
      ["linux/amd64", "linux/arm64"],
    ],
    [
      "a selector that names no node's",
      mixed,
      { nodeSelector: { "kubernetes.io/arch": "riscv64" } },
      ["linux/riscv64"],
    ],
    ["a system without an architecture", mixed, { nodeSelector: { "kubernetes.io/os": "windows" } }, ["windows/amd64"]],
    ["a value that no platform has", mixed, { nodeSelector: { "kubernetes.io/arch": "a/b" } }, []],
    [
      "a node's name in affinity",
      mixed,
      {
        affinity: {
          nodeAffinity: {
            requiredDuringSchedulingIgnoredDuringExecution: {
              nodeSelectorTerms: [{ matchFields: [{ key: "metadata.name", operator: "In", values: ["node-arm64"] }] }],
            },
          },
        },
      },
      ["linux/arm64"],
    ],
  ])("%s", (_, nodes, spec, want) => {
    const found = platformsFor(readNodes(nodes.join("\n")), { spec: { ...spec }, isDaemon: false });
    expect(found).toEqual([...want]);
  });

  test("knows nothing of a Pod without demands in a cluster without nodes", () => {
    expect(platformsFor([], ANYWHERE)).toEqual([]);
  });

  test("a Pod that is not known may tolerate more than it seems, but no control plane", () => {
    const nodes = [tainted("arm64", "pool"), tainted("amd64", "node-role.kubernetes.io/control-plane")];
    const unknown = { spec: undefined, isDaemon: false };
    expect(platformsFor(readNodes(nodes.join("\n")), unknown)).toEqual(["linux/arm64"]);
  });
});

describe("runsPlatform()", () => {
  test.each([
    ["linux/amd64", "linux/amd64", true],
    ["linux/amd64", "linux/amd64/v3", true],
    ["linux/amd64", "linux/386", true],
    ["linux/arm64", "linux/arm/v7", true],
    ["linux/arm", "linux/arm64", false],
    ["linux/386", "linux/amd64", false],
    ["linux/arm64", "linux/amd64", false],
    ["windows/amd64", "linux/amd64", false],
    ["windows/amd64", "windows/amd64:10.0.20348", true],
    ["linux/amd64", "linux", true],
  ])("a node of %s runs %s: %p", (own, image, want) => {
    expect(runsPlatform(parsePlatform(own), parsePlatform(image))).toBe(want);
  });
});
