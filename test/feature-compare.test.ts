import { describe, expect, test } from "bun:test";
import { compareImages, compareTars, compareValues } from "./helpers/oracle-compare.ts";
import type { PulledImage } from "./helpers/registry-images.ts";

const CONFIG = { Env: ["A=B", "PATH=/bin"], Labels: { a: "1" } };

function image(config: unknown, layer = "sha256:aa"): PulledImage {
  const layers = [
    { digest: "sha256:base", size: 1, diffId: "sha256:d0" },
    { digest: layer, size: layer.length, diffId: "sha256:d1" },
  ];
  return {
    kind: "image",
    mediaType: "m",
    digest: "sha256:00",
    text: JSON.stringify({
      config: { size: 2, digest: "sha256:cc" },
      layers: layers.map(({ size, digest }) => ({ size, digest })),
    }),
    configText: JSON.stringify({ config }),
    layers,
  };
}

describe("compareValues()", () => {
  test.each([
    ["equal values", CONFIG, CONFIG, []],
    [
      "an item",
      CONFIG,
      { ...CONFIG, Env: ["A=B", "PATH=/sbin"] },
      ['config.Env[1]: ours "PATH=/bin", original "PATH=/sbin"'],
    ],
    ["a missing item", { Env: [] }, { Env: ["A=B"] }, ['config.Env[0]: ours nothing, original "A=B"']],
    ["a missing field", {}, { User: "1" }, ['config.User: ours nothing, original "1"']],
    ["another type", { Env: null }, { Env: [] }, ["config.Env: ours null, original []"]],
  ])("tells %s by its path", (_what, ours, original, lines) => {
    expect(compareValues("config", ours, original)).toEqual(lines);
  });
});

describe("compareImages()", () => {
  const options = { baseDigest: "sha256:bb", baseLayers: 1 };

  test("takes another compression of the same layer for equal", () => {
    expect(compareImages(image(CONFIG), image(CONFIG, "sha256:other"), options)).toEqual([]);
  });

  test("sees another base layer", () => {
    const all = { ...options, baseLayers: 2 };
    expect(compareImages(image(CONFIG), image(CONFIG, "sha256:zz"), all)).toEqual([
      'manifest.layers[1].digest: ours "sha256:aa", original "sha256:zz"',
    ]);
  });

  test("sees keys in another order", () => {
    const { Env, Labels } = CONFIG;
    expect(compareImages(image({ Env, Labels }), image({ Labels, Env }), options)).toEqual([
      expect.stringMatching(/^config: equal values, other bytes from 12 on/),
    ]);
  });
});

describe("compareTars()", () => {
  function tar(mode: string, content: string): Uint8Array {
    const bytes = new Uint8Array(2048);
    new TextEncoder().encodeInto("name", bytes);
    new TextEncoder().encodeInto(mode, bytes.subarray(100));
    new TextEncoder().encodeInto("00000000004", bytes.subarray(124));
    new TextEncoder().encodeInto(content, bytes.subarray(512));
    return bytes;
  }

  test("names the entry and the field", () => {
    expect(compareTars("layer", tar("0000555", "same"), tar("0000644", "same"))).toEqual([
      'layer entry 0 "name".mode: ours "0000555", original "0000644"',
    ]);
  });

  test("sees another content and another end", () => {
    const one = tar("0000555", "same");
    expect(compareTars("layer", one, tar("0000555", "else"))).toEqual([
      expect.stringMatching(/^layer entry 0 "name"\.content: ours "4 bytes, sha256 /),
    ]);
    expect(compareTars("layer", one, one.subarray(0, 1536))).toEqual([
      "layer: the entries are equal, the padding or the end is not",
    ]);
  });
});
