/**
 * Leaves out the Kubernetes objects whose labels a selector does not want (`-l`, spec/behaviour.md 1.5).
 *
 * A list is filtered item by item. What goes is cut out of the text; no other byte changes, and places in the file stay
 * what they were. Selectors themselves are `selector.ts`'s job.
 */
import type { Document } from "yaml";
import { KoError, KoErrors } from "./errors.ts";
import type { Labels, Selector } from "./selector.ts";
import { renderDocument, showPlace, type YamlDocument, type YamlEdit } from "./yamldocs.ts";
import { cutItems } from "./yamlitems.ts";
import { composeTokens, loadYaml, readTokens, type Yaml } from "./yamlparse.ts";

/** What is left of a node: all of it if `cuts` is empty. */
interface Left {
  readonly wanted: boolean;
  readonly cuts: readonly YamlEdit[];
}

/** Merges within merges that are followed: more than any real file has, less than a loop. */
const MAX_MERGES = 100;

const ALL: Left = { wanted: true, cuts: [] };
const NOTHING: Left = { wanted: false, cuts: [] };

/**
 * The documents that hold an object with wanted labels, in order; lists without what is not wanted. An object without
 * labels has an empty set of them. A document that is null, and a list that has lost all items, is left out.
 *
 * @throws {KoError} If a document is no YAML, or neither null nor an object with `apiVersion` and `kind`.
 */
export async function filterDocuments(
  documents: readonly YamlDocument[],
  selector: Selector,
): Promise<readonly YamlDocument[]> {
  const yaml = await loadYaml();
  const left: YamlDocument[] = [];
  const errors: KoError[] = [];
  for (const document of documents) {
    try {
      const filtered = filterDocument(document, { yaml, selector });
      if (filtered !== undefined) left.push(filtered);
    } catch (error) {
      if (!(error instanceof KoError)) throw error;
      errors.push(error);
    }
  }
  if (errors.length === 1 && errors[0] !== undefined) throw errors[0];
  if (errors.length > 1) throw new KoErrors(errors);
  return left;
}

function filterDocument(
  document: YamlDocument,
  options: { readonly yaml: Yaml; readonly selector: Selector },
): YamlDocument | undefined {
  const { yaml } = options;
  const tree = composeTokens(yaml, readTokens(yaml, document), document);
  const { wanted, cuts } = new Filter({ ...options, document, tree }).look(tree?.contents);
  if (!wanted) return undefined;
  if (cuts.length === 0) return document;
  const filtered = { ...document, edits: [...document.edits, ...cuts] };
  checkAliases(yaml, { document, filtered });
  return filtered;
}

interface FilterOptions {
  readonly yaml: Yaml;
  readonly selector: Selector;
  readonly document: YamlDocument;
  readonly tree: Document.Parsed | undefined;
}

/** One document's objects. */
class Filter {
  readonly #options: FilterOptions;

  constructor(options: FilterOptions) {
    this.#options = options;
  }

  /** What is left of an object, a list or a null. */
  look(node: unknown): Left {
    const { yaml, selector } = this.#options;
    const object = this.#resolve(node);
    if (object === undefined || object === null || (yaml.isScalar(object) && object.value === null)) return NOTHING;
    const kind = this.#textOf(this.#find(object, "kind"));
    if (kind === undefined || this.#textOf(this.#find(object, "apiVersion")) === undefined) {
      throw this.#refuse(node, "it has no apiVersion and kind, wanted a Kubernetes object");
    }
    const items = this.#find(object, "items");
    if (kind === "List" || (kind.endsWith("List") && yaml.isSeq(this.#resolve(items)))) return this.#lookAtList(items);
    return selector(this.#labelsOf(object)) ? ALL : NOTHING;
  }

  #lookAtList(items: unknown): Left {
    const { yaml } = this.#options;
    const list = this.#resolve(items);
    if (yaml.isScalar(list) && list.value === null) return NOTHING;
    if (!yaml.isSeq(list)) throw this.#refuse(items, "it is a List without items, wanted a sequence of objects");
    const left = list.items.map((item) => this.look(item));
    if (!left.some(({ wanted }) => wanted)) return NOTHING;
    if (left.every(({ wanted, cuts }) => wanted && cuts.length === 0)) return ALL;
    const { srcToken } = list;
    if (yaml.isAlias(items) || srcToken === undefined) {
      throw this.#refuse(items, "the items of a List are an alias, which cannot be left out one by one");
    }
    const cuts = cutItems(this.#options.document.text, srcToken, {
      keep: left.map(({ wanted }) => wanted),
    });
    return { wanted: true, cuts: [...cuts, ...left.flatMap((item) => (item.wanted ? item.cuts : []))] };
  }

  #labelsOf(object: unknown): Labels {
    const { yaml } = this.#options;
    const labels = new Map<string, string>();
    const collect = (node: unknown, depth: number): void => {
      const map = this.#resolve(node);
      if (!yaml.isMap(map) || depth > MAX_MERGES) return;
      for (const { key, value } of map.items) {
        const name = this.#textOf(key) ?? this.#rawOf(key);
        if (name !== undefined && !labels.has(name)) labels.set(name, this.#rawOf(value) ?? "");
      }
      for (const merged of this.#mergedInto(map)) collect(merged, depth + 1);
    };
    collect(this.#find(this.#find(object, "metadata"), "labels"), 0);
    labels.delete("<<");
    return labels;
  }

  /** The value of a key, in the map itself or in one merged into it. */
  #find(node: unknown, name: string, depth = 0): unknown {
    const map = this.#resolve(node);
    if (!this.#options.yaml.isMap(map) || depth > MAX_MERGES) return undefined;
    for (const { key, value } of map.items) if (this.#textOf(key) === name) return value;
    for (const merged of this.#mergedInto(map)) {
      const value = this.#find(merged, name, depth + 1);
      if (value !== undefined) return value;
    }
    return undefined;
  }

  /** The maps that `<<` keys name. https://yaml.org/type/merge.html */
  #mergedInto(map: { readonly items: readonly { key: unknown; value: unknown }[] }): readonly unknown[] {
    const { yaml } = this.#options;
    return map.items
      .filter(({ key }) => yaml.isScalar(key) && key.source === "<<")
      .flatMap(({ value }): readonly unknown[] => {
        const merged = this.#resolve(value);
        return yaml.isSeq(merged) ? merged.items : [merged];
      });
  }

  /** A string scalar's value; undefined for anything else. */
  #textOf(node: unknown): string | undefined {
    const scalar = this.#resolve(node);
    return this.#options.yaml.isScalar(scalar) && typeof scalar.value === "string" ? scalar.value : undefined;
  }

  /** A scalar as it is written, without quotes: `1.10` of a number, `true` of a boolean. */
  #rawOf(node: unknown): string | undefined {
    const scalar = this.#resolve(node);
    if (!this.#options.yaml.isScalar(scalar)) return undefined;
    return typeof scalar.value === "string" ? scalar.value : (scalar.source ?? "");
  }

  #resolve(node: unknown): unknown {
    const { yaml, tree } = this.#options;
    return yaml.isAlias(node) && tree !== undefined ? node.resolve(tree) : node;
  }

  #refuse(node: unknown, why: string): KoError {
    const { yaml, document } = this.#options;
    const at = yaml.isNode(node) ? (node.range?.[0] ?? 0) : 0;
    return new KoError(`Cannot apply the selector to "${showPlace(document, at)}": ${why}`, {
      hint: "Leave out -l, or the file.",
    });
  }
}

/**
 * An alias whose anchor went with a cut names nothing, or another anchor of the same name.
 *
 * @throws {KoError} If a cut range holds an anchor that an alias in what is left needs.
 */
function checkAliases(yaml: Yaml, options: { readonly document: YamlDocument; readonly filtered: YamlDocument }): void {
  const { document, filtered } = options;
  if (!filtered.edits.some(({ start, end }) => document.text.slice(start, end).includes("&"))) return;
  const text = renderDocument(filtered);
  const after = { ...filtered, text, edits: [] };
  const tree = composeTokens(yaml, readTokens(yaml, after), after);
  if (tree === undefined) return;
  yaml.visit(tree, {
    Alias: (_key, alias) => {
      if (alias.resolve(tree) !== undefined) return;
      throw new KoError(
        `Cannot apply the selector to "${document.file}": what it leaves out has the anchor &${alias.source}, ` +
          `which is used in what is left`,
        { hint: `Write out what *${alias.source} stands for.` },
      );
    },
  });
}
