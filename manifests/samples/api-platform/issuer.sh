#!/usr/bin/env bash
# Plays the identity provider of this sample: makes a key, and tokens that it signs.
#
#   ./issuer.sh keys | kubectl apply -f -          # the public half, where Tidegate fetches it
#   TOKEN=$(./issuer.sh token web-app)             # a token for an app, good for an hour
#   TOKEN=$(./issuer.sh token web-app orders:delete)      # with a scope
#
# The private half stays in a file of yours: $ISSUER_KEY, by default ~/.cache/tidegate/issuer.pem.
set -euo pipefail

key=${ISSUER_KEY:-${XDG_CACHE_HOME:-$HOME/.cache}/tidegate/issuer.pem}
if [ ! -f "$key" ]; then
  mkdir -p "$(dirname "$key")"
  (umask 077 && openssl genrsa -out "$key" 2048 2>/dev/null)
fi

base64url() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }

case "${1:-}" in
  keys)
    hex=$(openssl rsa -in "$key" -noout -modulus | sed 's/^Modulus=//; s/../\\x&/g')
    # shellcheck disable=SC2059 # the escapes are the content
    n=$(printf "$hex" | base64url)
    cat <<END
apiVersion: v1
kind: ConfigMap
metadata:
  name: issuer-keys
  namespace: api-platform
data:
  jwks.json: |
    {"keys": [{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "demo", "e": "AQAB", "n": "$n"}]}
END
    ;;
  token)
    app=${2:?usage: $0 token APP [SCOPE…]}
    now=$(date +%s)
    head='{"alg":"RS256","typ":"JWT","kid":"demo"}'
    claims=$(printf '{"iss":"https://issuer.example.com","aud":"api","sub":"alice","azp":"%s","tenant":"acme","scope":"%s","iat":%d,"exp":%d}' \
      "$app" "${*:3}" "$now" "$((now + 3600))")
    part=$(printf %s "$head" | base64url).$(printf %s "$claims" | base64url)
    printf '%s.%s\n' "$part" "$(printf %s "$part" | openssl dgst -sha256 -sign "$key" -binary | base64url)"
    ;;
  *)
    echo "usage: $0 keys | $0 token APP [SCOPE…]" >&2
    exit 2
    ;;
esac
