/**
 * YAML streams as values, read by the `yaml` package with nothing of lib/ in between.
 */
import { parseAllDocuments } from "yaml";

/**
 * The values of all documents that hold more than nothing, in order. The `repository` that images are pushed to is
 * written `REPO` and digests `DIGEST`, so that what was pushed to two places, with two digests, compares as equal.
 *
 * @throws {Error} If the text is no YAML.
 */
export function readDocuments(text: string, repository: string): readonly unknown[] {
  const named = text.replaceAll(repository, "REPO").replaceAll(/@sha256:[0-9a-f]{64}/g, "@DIGEST");
  const documents = parseAllDocuments(named, { uniqueKeys: false, merge: true, logLevel: "error" });
  if (!Array.isArray(documents)) return [];
  return documents.flatMap((document) => {
    for (const error of document.errors) throw error;
    const value: unknown = document.toJS();
    return value === null || value === undefined ? [] : [value];
  });
}
