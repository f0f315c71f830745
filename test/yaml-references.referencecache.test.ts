import { describe, expect, test } from "bun:test";
import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Cache } from "../lib/cache.ts";
import { messageOf } from "../lib/errors.ts";
import { cachedReferences, findReferences, type ReferenceMemory, type YamlReference } from "../lib/yaml-references.ts";
import { splitDocuments, type YamlDocument } from "../lib/yaml.ts";
import { makeCacheBox } from "./helpers/cachebox.ts";
import { rejectionOf } from "./helpers/rejection.ts";

const TEXT = "a: ko://example.com/a # é\nb:\n  - 'ko://example.com/b'\n  - >-\n    ko://example.com/c\n";

function parse(text: string, file = "in.yaml"): readonly YamlDocument[] {
  return splitDocuments(new TextEncoder().encode(text), file);
}

async function find(text: string, memory?: ReferenceMemory): Promise<readonly YamlReference[]> {
  return (await Promise.all(parse(text).map((document) => findReferences(document, memory)))).flat();
}

/** A memory that notes what it could tell. */
function listening(cache: Cache): ReferenceMemory & { readonly recalled: boolean[] } {
  const memory = cachedReferences(cache);
  const recalled: boolean[] = [];
  const recall: ReferenceMemory["recall"] = (text) => {
    const found = memory.recall(text);
    recalled.push(found !== undefined);
    return found;
  };
  return { recall, remember: (text, found) => memory.remember(text, found), recalled };
}

describe("cachedReferences()", () => {
  test("finds in a later run what the parser found, also further down in another stream", async () => {
    using box = makeCacheBox();
    const want = await find(TEXT);
    expect(want.map(({ value, line, column }) => [value, line, column])).toEqual([
      ["ko://example.com/a", 1, 4],
      ["ko://example.com/b", 3, 6],
      ["ko://example.com/c", 5, 5],
    ]);
    await using cache = box.open();
    expect(await find(TEXT, cachedReferences(cache))).toEqual(want);
    await using later = box.open();
    const memory = listening(later);
    expect(await find(TEXT, memory)).toEqual(want);
    expect(await find(`x: 1\n---\n${TEXT}`, memory)).toEqual(await find(`x: 1\n---\n${TEXT}`));
    expect(memory.recalled[0]).toBe(true);
  });

  test("knows nothing of another text, nor of a record that is damaged", async () => {
    using box = makeCacheBox();
    await using cache = box.open();
    await find(TEXT, cachedReferences(cache));
    const memory = listening(cache);
    expect((await find(TEXT.replace("/a #", "/z #"), memory))[0]?.value).toBe("ko://example.com/z");
    const folder = join(cache.folder, "records");
    for (const name of readdirSync(folder)) writeFileSync(join(folder, name), "damaged");
    expect(await find(TEXT, memory)).toEqual(await find(TEXT));
    expect(memory.recalled).toEqual([false, false]);
  });

  test("keeps nothing of a document that is no YAML", async () => {
    using box = makeCacheBox();
    await using cache = box.open();
    const memory = listening(cache);
    for (let i = 0; i < 2; i++) {
      expect(messageOf(await rejectionOf(find("a: [ko://example.com/a\n", memory)))).toContain(`"in.yaml:2:1"`);
    }
    expect(memory.recalled).toEqual([false, false]);
  });
});
