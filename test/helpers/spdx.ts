/**
 * Judges SPDX documents by the rules of SPDX 2.3: the fields of its JSON form with their values, what an identifier may
 * hold, and that relationships lead to elements of the document. https://spdx.github.io/spdx-spec/v2.3/
 *
 * The schema of SPDX is in no package of a registry that the tests may use, and would not see a bad identifier.
 */
import { isObject } from "./registry-images.ts";

type Check = (value: unknown) => string | undefined;

const TEXT: Check = (value) => (typeof value === "string" && value !== "" ? undefined : "is no text");
const matching =
  (form: RegExp): Check =>
  (value) =>
    typeof value === "string" && form.test(value) ? undefined : `is not of the form ${form}`;
const one = (...values: readonly unknown[]): Check => {
  return (value) => (values.includes(value) ? undefined : `is not one of ${JSON.stringify(values)}`);
};
const listOf = (check: Check): Check => {
  return (value) => {
    if (!Array.isArray(value) || value.length === 0) return "is no list with an element";
    return value.flatMap((item, i) => [check(item)].flatMap((why) => (why === undefined ? [] : `[${i}] ${why}`)))[0];
  };
};
/** An object with exactly these fields; those whose name ends in "?" may be missing. */
const object = (fields: Readonly<Record<string, Check>>): Check => {
  return (value) => {
    if (!isObject(value)) return "is no object";
    const known = new Map(Object.entries(fields).map(([name, check]) => [name.replace(/\?$/, ""), check]));
    const stranger = Object.keys(value).find((name) => !known.has(name));
    if (stranger !== undefined) return `has an unknown field ${stranger}`;
    for (const [name, check] of known) {
      if (!(name in value) && `${name}?` in fields) continue;
      const why = check(value[name]);
      if (why !== undefined) return `.${name} ${why}`;
    }
    return undefined;
  };
};

const ID = matching(/^SPDXRef-[A-Za-z0-9.-]+$/);
const LICENSE = one("NOASSERTION", "NONE");
const LOCATION = matching(/^(?:NOASSERTION|NONE|https:\/\/[^\s/()]+\.[^\s/()]+\/[^\s()]+)$/);
const RELATION = one("CONTAINS", "DEPENDS_ON", "DESCENDANT_OF", "DESCRIBES", "VARIANT_OF");

const PACKAGE = object({
  SPDXID: ID,
  name: TEXT,
  "versionInfo?": TEXT,
  filesAnalyzed: one(false),
  licenseDeclared: LICENSE,
  licenseConcluded: LICENSE,
  downloadLocation: LOCATION,
  copyrightText: LICENSE,
  "primaryPackagePurpose?": one("CONTAINER", "APPLICATION", "LIBRARY"),
  "checksums?": listOf(object({ algorithm: one("SHA256"), checksumValue: matching(/^[0-9a-f]{64}$/) })),
  "externalRefs?": listOf(
    object({
      referenceCategory: one("PACKAGE-MANAGER"),
      referenceLocator: matching(/^pkg:(?:golang|oci)\/[^\s?#]+(?:\?[^\s?#]+)?$/),
      referenceType: one("purl"),
    }),
  ),
});

const DOCUMENT = object({
  SPDXID: one("SPDXRef-DOCUMENT"),
  name: TEXT,
  spdxVersion: one("SPDX-2.3"),
  creationInfo: object({
    created: matching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/),
    creators: listOf(matching(/^(?:Tool|Person|Organization): \S/)),
  }),
  dataLicense: one("CC0-1.0"),
  documentNamespace: matching(/^https?:\/\/[^\s#]+$/),
  documentDescribes: listOf(ID),
  packages: listOf(PACKAGE),
  relationships: listOf(object({ spdxElementId: ID, relationshipType: RELATION, relatedSpdxElement: ID })),
});

/** What is wrong with a document, one line each. */
export function findSpdxProblems(bytes: Uint8Array): readonly string[] {
  const document: unknown = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  const problem = DOCUMENT(document);
  if (problem !== undefined || !isObject(document)) return [`document${problem ?? ""}`];
  const { packages, relationships, documentDescribes } = document;
  const ids = idsOf(packages, "SPDXID");
  const known = new Set(["SPDXRef-DOCUMENT", ...ids]);
  const used = [
    ...idsOf(relationships, "spdxElementId"),
    ...idsOf(relationships, "relatedSpdxElement"),
    ...(Array.isArray(documentDescribes) ? documentDescribes.map(String) : []),
  ];
  const edges = Array.isArray(relationships) ? relationships.map((edge) => JSON.stringify(edge)) : [];
  const reached = new Set([...idsOf(relationships, "relatedSpdxElement"), ...used.slice(-1)]);
  return [
    ...ids.filter((id, i) => ids.indexOf(id) !== i).map((id) => `two packages have the identifier ${id}`),
    ...edges.filter((edge, i) => edges.indexOf(edge) !== i).map((edge) => `the relationship ${edge} is there twice`),
    ...used.filter((id) => !known.has(id)).map((id) => `${id} is no package of the document`),
    ...ids.filter((id) => !reached.has(id)).map((id) => `no relationship leads to ${id}`),
  ];
}

function idsOf(list: unknown, key: string): readonly string[] {
  return Array.isArray(list) ? list.map((item) => (isObject(item) ? String(item[key]) : "")) : [];
}
