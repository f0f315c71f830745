/**
 * Containers that will not start from a side-loaded image: `imagePullPolicy: Always` beside a `ko://` reference.
 *
 * An image that was loaded into a daemon or a node is in no registry, so a kubelet that always pulls finds none.
 */
import { createLocator, type YamlDocument, type YamlPlace } from "./yamldocs.ts";
import { composeTokens, loadYaml, readTokens } from "./yamlparse.ts";

/** Where the policies stand. */
export async function findAlwaysPulled(document: YamlDocument): Promise<readonly YamlPlace[]> {
  if (!document.text.includes("imagePullPolicy")) return [];
  const yaml = await loadYaml();
  const tree = composeTokens(yaml, readTokens(yaml, document), document);
  if (tree === undefined) return [];
  const places: YamlPlace[] = [];
  const locate = createLocator(document);
  const valueOf = (node: unknown): unknown => {
    const meant = yaml.isAlias(node) ? node.resolve(tree) : node;
    return yaml.isScalar(meant) ? meant.value : undefined;
  };
  yaml.visit(tree, {
    Map: (_, container) => {
      const image = valueOf(container.get("image", true));
      const policy: unknown = container.get("imagePullPolicy", true);
      if (typeof image !== "string" || !image.trim().startsWith("ko://") || valueOf(policy) !== "Always") return;
      places.push(locate((yaml.isNode(policy) ? policy.range?.[0] : undefined) ?? 0));
    },
  });
  return places;
}
